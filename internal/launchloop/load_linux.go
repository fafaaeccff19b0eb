//go:build linux && (amd64 || arm64)

package launchloop

import "github.com/ebitengine/purego"

func load(path string) (loop Loop, err error) {
	library, err := purego.Dlopen(path, purego.RTLD_NOW|purego.RTLD_LOCAL)
	if err != nil {
		return nil, err
	}
	address, err := purego.Dlsym(library, "launch_loop")
	if err != nil {
		return nil, err
	}
	purego.RegisterFunc(&loop, address)
	return loop, nil
}
