//go:build linux && amd64

package main

import (
	"bytes"
	"errors"
	"fmt"
	"runtime"
	"unsafe"

	"github.com/ebitengine/purego"
)

// A compiler is NVRTC, NVIDIA's compiler as a library. It needs no GPU and no
// driver.
type compiler struct {
	errorString    func(result int32) string
	createProgram  func(program *uintptr, source, name *byte, headers int32, contents, names **byte) int32
	destroyProgram func(program *uintptr) int32
	compileProgram func(program uintptr, count int32, options **byte) int32
	log, cubin     output
	ptx            output
}

// An output is a pair of functions that tell the length of something that a
// program holds, and write it.
type output struct {
	size func(program uintptr, bytes *uint64) int32
	get  func(program uintptr, to *byte) int32
}

// loadCompiler opens the library at path. libnvrtc-builtins must lie beside
// it.
func loadCompiler(path string) (*compiler, error) {
	library, err := purego.Dlopen(path, purego.RTLD_NOW|purego.RTLD_LOCAL)
	if err != nil {
		return nil, fmt.Errorf("%w (make nvrtc installs it)", err)
	}
	c := &compiler{}
	for name, function := range map[string]any{
		"nvrtcGetErrorString":    &c.errorString,
		"nvrtcCreateProgram":     &c.createProgram,
		"nvrtcDestroyProgram":    &c.destroyProgram,
		"nvrtcCompileProgram":    &c.compileProgram,
		"nvrtcGetProgramLogSize": &c.log.size,
		"nvrtcGetProgramLog":     &c.log.get,
		"nvrtcGetCUBINSize":      &c.cubin.size,
		"nvrtcGetCUBIN":          &c.cubin.get,
		"nvrtcGetPTXSize":        &c.ptx.size,
		"nvrtcGetPTX":            &c.ptx.get,
	} {
		purego.RegisterLibFunc(function, library, name)
	}
	return c, nil
}

// compile compiles source, whose #include finds the files of headers and
// nothing else: the image cannot depend on what a machine has installed. It
// returns the image, SASS for a target sm_NN and PTX text for compute_NN, and
// the log, also when there is an error.
func (c *compiler) compile(name, source, target string, headers map[string]string, flags []string) (image []byte, log string, err error) {
	var names, contents []string
	for name, content := range headers {
		names, contents = append(names, name), append(contents, content)
	}
	options := append([]string{"--gpu-architecture=" + target, "--no-source-include"}, flags...)

	var program uintptr
	text := cStrings(append([]string{source, name}, append(contents, append(names, options...)...)...))
	defer runtime.KeepAlive(text)
	n := len(names)
	contentsAt, namesAt, optionsAt := unsafe.SliceData(text[2:]), unsafe.SliceData(text[2+n:]), unsafe.SliceData(text[2+2*n:])
	if err := c.check("nvrtcCreateProgram", c.createProgram(&program, text[0], text[1], int32(n), contentsAt, namesAt)); err != nil {
		return nil, "", err
	}
	defer c.destroyProgram(&program)

	compileErr := c.check("nvrtcCompileProgram", c.compileProgram(program, int32(len(options)), optionsAt))
	logText, err := c.read("nvrtcGetProgramLog", program, c.log)
	if err = errors.Join(compileErr, err); err != nil {
		return nil, string(logText), err
	}
	if isPTX(target) {
		image, err = c.read("nvrtcGetPTX", program, c.ptx)
		image = bytes.TrimRight(image, "\x00")
	} else {
		image, err = c.read("nvrtcGetCUBIN", program, c.cubin)
	}
	return image, string(bytes.TrimRight(logText, "\x00")), err
}

// read returns one output of a program.
func (c *compiler) read(call string, program uintptr, of output) ([]byte, error) {
	var size uint64
	if err := c.check(call+"Size", of.size(program, &size)); err != nil || size == 0 {
		return nil, err
	}
	content := make([]byte, size)
	return content, c.check(call, of.get(program, &content[0]))
}

func (c *compiler) check(call string, result int32) error {
	if result == 0 {
		return nil
	}
	return fmt.Errorf("%s: %s (%d)", call, c.errorString(result), result)
}

// cStrings returns NUL-terminated copies.
func cStrings(texts []string) []*byte {
	pointers := make([]*byte, len(texts))
	for i, text := range texts {
		pointers[i] = &append([]byte(text), 0)[0]
	}
	return pointers
}
