package driver

import (
	"fmt"
	"strings"
	"sync"
	"unsafe"
)

// Path is the name by which the system finds the driver.
const Path = "libcuda.so.1"

// MinVersion is the least CUDA version of a driver: the first that loads the
// machine code of a CUDA 12 compiler, and that has libraries of kernels which
// belong to no context. It came with driver 525.
const MinVersion = 12000

// Library is the driver.
type Library struct {
	handle  uintptr
	version int
	address [functions]uintptr
}

var (
	openedMutex sync.Mutex
	opened      = map[string]*Library{}
)

// Open loads the driver and starts it, once for each path. What is missing or
// too old is an error that wraps ErrUnavailable and says so.
func Open(path string) (*Library, error) {
	openedMutex.Lock()
	defer openedMutex.Unlock()
	if l := opened[path]; l != nil {
		return l, nil
	}
	l, err := newLibrary(path)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	opened[path] = l
	return l, nil
}

func newLibrary(path string) (*Library, error) {
	handle, err := open(path)
	if err != nil {
		return nil, fmt.Errorf("the NVIDIA driver: %w", err)
	}
	l := &Library{handle: handle}
	// An old driver lacks functions that are asked for below; its version says
	// more than their names.
	for f := range cuInit {
		if err := l.resolve(f); err != nil {
			return nil, err
		}
	}
	var version int32
	if err := l.call(cuDriverGetVersion, uintptr(unsafe.Pointer(&version))); err != nil {
		return nil, err
	}
	l.version = int(version)
	if l.version < MinVersion {
		return nil, fmt.Errorf("the NVIDIA driver supports CUDA %s, want CUDA %s (driver 525) or newer",
			versionName(l.version), versionName(MinVersion))
	}
	for f := cuInit; f < functions; f++ {
		if err := l.resolve(f); err != nil {
			return nil, err
		}
	}
	return l, l.call(cuInit, 0)
}

func versionName(version int) string {
	return fmt.Sprintf("%d.%d", version/1000, version%1000/10)
}

// resolve finds the function in the library.
func (l *Library) resolve(f function) (err error) {
	if l.address[f], err = find(l.handle, symbols[f]); err != nil {
		return fmt.Errorf("the NVIDIA driver has no %s: %w", symbols[f], err)
	}
	return nil
}

// Version returns the CUDA version that the driver supports, 12080 for 12.8.
func (l *Library) Version() int { return l.version }

// Symbol returns the address of any symbol of the library.
func (l *Library) Symbol(name string) (uintptr, error) { return find(l.handle, name) }

// call calls the function and returns its result as an error.
//
//go:uintptrescapes
func (l *Library) call(f function, arguments ...uintptr) error {
	return l.result(f, call(l.address[f], arguments...))
}

// result turns the code into an error.
func (l *Library) result(f function, code Code) error {
	if code == Success {
		return nil
	}
	e := &Error{Call: symbols[f], Code: code, Name: l.describe(cuGetErrorName, code), Text: l.describe(cuGetErrorString, code)}
	if e.Name == "" {
		e.Name, e.Text = "unknown error", "the driver has no name for it"
	}
	return e
}

// describe returns the string that the driver has for the code, or "".
func (l *Library) describe(f function, code Code) string {
	var text *byte
	if call(l.address[f], uintptr(code), uintptr(unsafe.Pointer(&text))) != Success || text == nil {
		return ""
	}
	return cString(text)
}

// cString copies a string that ends with a zero.
func cString(first *byte) string {
	var b strings.Builder
	for p := first; *p != 0; p = (*byte)(unsafe.Add(unsafe.Pointer(p), 1)) {
		b.WriteByte(*p)
	}
	return b.String()
}
