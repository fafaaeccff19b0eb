//go:build linux && amd64

// Command build compiles the kernels of the folder above it. It needs no GPU,
// only NVRTC, which `make nvrtc` installs.
//
//	go run ./cuda/kernels/build            write the artefacts and the manifest
//	go run ./cuda/kernels/build -check     compare them with a new build instead
//	go run ./cuda/kernels/build -target sm_90 -out x.cubin FILE.cu
//	                                       compile one file
//
// Each prints the compiler's log and the resources that every kernel takes.
package main

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"debug/elf"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"text/tabwriter"

	"github.com/ai-kernel-factory/aikf/cuda/kernels"
)

// targets are what every artefact is compiled for. PTX names no architecture
// feature (compute_90, not compute_90a), so that later cards can take it.
var targets = []string{"sm_80", "sm_90", "compute_90"}

// flags hold for every target. The ones about arithmetic are part of the
// contract: a token must not depend on how an operation is fused or rounded.
var flags = []string{"-std=c++17", "-fmad=false", "-ftz=false", "-prec-div=true", "-prec-sqrt=true"}

func main() {
	folder := flag.String("folder", "cuda/kernels", "`folder` of the sources and the artefacts")
	library := flag.String("nvrtc", ".build/nvrtc/nvidia/cuda_nvrtc/lib/libnvrtc.so.12", "`path` of the compiler's library")
	check := flag.Bool("check", false, "compare the artefacts with a new build, write nothing")
	target := flag.String("target", "", "compile one file for one `target`: sm_NN to SASS, compute_NN to PTX")
	out := flag.String("out", "", "with -target: `file` to write the image to")
	more := flag.String("flags", "", "with -target: more compiler `flags`, such as -lineinfo")
	flag.Parse()

	err := func() error {
		nvrtc, err := loadCompiler(*library)
		if err != nil {
			return err
		}
		if *target != "" {
			if flag.NArg() != 1 {
				return fmt.Errorf("-target compiles one file, not %d", flag.NArg())
			}
			return compileFile(nvrtc, flag.Arg(0), *target, *out, strings.Fields(*more))
		}
		if flag.NArg() != 0 || *out != "" || *more != "" {
			return errors.New("a file, -out and -flags go with -target")
		}
		return buildAll(nvrtc, *folder, *check)
	}()
	if err != nil {
		fmt.Fprintln(os.Stderr, "build:", err)
		os.Exit(1)
	}
}

// compileFile compiles one file, whose #include finds what lies beside it.
func compileFile(nvrtc *compiler, path, target, out string, more []string) error {
	sources, err := readSources(filepath.Dir(path))
	if err != nil {
		return err
	}
	made := compile(nvrtc, include(filepath.Base(path)), target, sources, append(slices.Clone(flags), more...))
	if err := made.print(target); err != nil || out == "" {
		return err
	}
	return os.WriteFile(out, made.image, 0o644)
}

// instrumented is the source whose images are of a folder, and a package, of their own: who does not profile links none of them.
const instrumented = "phases.cu"

// buildAll compiles all .cu files of a folder for every target, to SASS as one program
// (and the instrumented one as another) and to PTX one by one, and writes the images and the manifest, or compares them with what is there.
// An image that did not change is not compressed again: another version of
// gzip may give other bytes.
func buildAll(nvrtc *compiler, folder string, check bool) error {
	sources, err := readSources(folder)
	if err != nil {
		return err
	}
	manifest := kernels.Manifest{Flags: flags, Sources: map[string]string{}}
	var programs []string
	for _, name := range slices.Sorted(maps.Keys(sources)) {
		manifest.Sources[name] = hash([]byte(sources[name]))
		if strings.HasSuffix(name, ".cu") && name != instrumented {
			programs = append(programs, include(name))
		}
	}
	type job struct {
		folder, target string
		programs       []string
		made           build
	}
	var jobs []*job
	for _, target := range targets {
		jobs = append(jobs, &job{"", target, programs, build{}})
	}
	if _, ok := sources[instrumented]; ok {
		for _, target := range targets {
			jobs = append(jobs, &job{"phases/", target, []string{include(instrumented)}, build{}})
		}
	}
	var builds sync.WaitGroup
	for _, j := range jobs {
		builds.Go(func() {
			if isPTX(j.target) {
				j.made = compileEach(nvrtc, j.programs, j.target, sources)
			} else {
				j.made = compile(nvrtc, strings.Join(j.programs, ""), j.target, sources, flags)
			}
		})
	}
	builds.Wait()

	var stale []string
	for _, j := range jobs {
		if err := j.made.print(j.folder + j.target); err != nil {
			return err
		}
		image := j.made.image
		artefact := kernels.Artefact{File: j.folder + "kernels_" + j.target + ".cubin.gz", Target: j.target, Bytes: len(image), SHA256: hash(image), Kernels: j.made.kernels}
		if isPTX(j.target) {
			artefact.File = j.folder + "kernels_" + j.target + ".ptx.gz"
			manifest.Compiler = compilerVersion(image)
		}
		manifest.Artefacts = append(manifest.Artefacts, artefact)
		path := filepath.Join(folder, artefact.File)
		if before, err := readCompressed(path); err == nil && bytes.Equal(before, image) {
			continue
		}
		stale = append(stale, artefact.File)
		if !check {
			if err := writeCompressed(path, image); err != nil {
				return err
			}
		}
	}
	content, err := json.MarshalIndent(manifest, "", "\t")
	if err != nil {
		return err
	}
	content = append(content, '\n')
	path := filepath.Join(folder, "manifest.json")
	if before, err := os.ReadFile(path); err != nil || !bytes.Equal(before, content) {
		stale = append(stale, "manifest.json")
		if !check {
			return os.WriteFile(path, content, 0o644)
		}
	}
	if check && len(stale) > 0 {
		return fmt.Errorf("a new build differs in %s: run make kernels and commit", strings.Join(stale, ", "))
	}
	return nil
}

func include(name string) string { return fmt.Sprintf("#include %q\n", name) }

// A build is what the compiler made for one target.
type build struct {
	image    []byte
	kernels  []kernels.Kernel
	messages string
	err      error
}

// compileEach compiles programs to one image each, and joins these, with a NUL behind
// each.
func compileEach(nvrtc *compiler, programs []string, target string, sources map[string]string) build {
	var all build
	for _, program := range programs {
		one := compile(nvrtc, program, target, sources, flags)
		if one.err != nil {
			return one
		}
		all.image = append(append(all.image, one.image...), 0)
		all.kernels = append(all.kernels, one.kernels...)
		all.messages += one.messages
	}
	slices.SortFunc(all.kernels, bySymbol)
	return all
}

func bySymbol(a, b kernels.Kernel) int { return strings.Compare(a.Symbol, b.Symbol) }

// compile compiles a program for one target.
func compile(nvrtc *compiler, program, target string, sources map[string]string, flags []string) build {
	if !isPTX(target) {
		flags = append(slices.Clone(flags), "--ptxas-options=-v")
	}
	var b build
	var log string
	b.image, log, b.err = nvrtc.compile("kernels.cu", program, target, sources, flags)
	b.kernels, b.messages = resources(log)
	if b.err != nil {
		b.err = fmt.Errorf("%s: %w", target, b.err)
		return b
	}
	if isPTX(target) {
		for _, match := range entryPoint.FindAllSubmatch(b.image, -1) {
			b.kernels = append(b.kernels, kernels.Kernel{Symbol: string(match[1])})
		}
	} else {
		b.err = measureCode(b.image, b.kernels)
	}
	slices.SortFunc(b.kernels, bySymbol)
	return b
}

// measureCode adds the bytes of machine code, of which each kernel has a
// section of its own.
func measureCode(image []byte, entries []kernels.Kernel) error {
	// NVIDIA keeps a version of its own in the header, where debug/elf wants
	// that of ELF.
	image = bytes.Clone(image)
	binary.LittleEndian.PutUint32(image[20:], uint32(elf.EV_CURRENT))
	file, err := elf.NewFile(bytes.NewReader(image))
	if err != nil {
		return err
	}
	for i := range entries {
		section := file.Section(".text." + entries[i].Symbol)
		if section == nil {
			return fmt.Errorf("the image has no code of %s", entries[i].Symbol)
		}
		entries[i].CodeBytes = int(section.Size)
	}
	return nil
}

// print writes the compiler's messages and a table of the kernels. It returns
// the error of the build.
func (b build) print(target string) error {
	os.Stderr.WriteString(b.messages)
	if b.err != nil {
		return b.err
	}
	fmt.Printf("%s: %d bytes, %d kernels\n", target, len(b.image), len(b.kernels))
	if isPTX(target) {
		return nil
	}
	table := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "registers\tshared\tstack\tspills\tcode\t  kernel")
	for _, k := range b.kernels {
		fmt.Fprintf(table, "%d\t%d\t%d\t%d\t%d\t  %s\n", k.Registers, k.SharedBytes, k.StackBytes, k.SpillBytes, k.CodeBytes, k.Symbol)
	}
	return table.Flush()
}

// What the assembler says of a kernel with -v.
var (
	assembler  = regexp.MustCompile(`(?m)^ptxas +(info .*|\. .* bytes stack frame.*)\n`)
	compiling  = regexp.MustCompile(`^ptxas info +: Compiling entry function '(\w+)'`)
	spills     = regexp.MustCompile(`^ptxas +\. +(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads`)
	registers  = regexp.MustCompile(`^ptxas info +: Used (\d+) registers`)
	shared     = regexp.MustCompile(`, (\d+) bytes smem`)
	entryPoint = regexp.MustCompile(`(?m)^\.visible \.entry (\w+)\(`)
	version    = regexp.MustCompile(`(?m)^// Cuda compilation tools, .*V([0-9.]+)$`)
)

// resources divides a log into the kernels with what they take, and the
// messages.
func resources(log string) (entries []kernels.Kernel, messages string) {
	for line := range strings.Lines(log) {
		if match := compiling.FindStringSubmatch(line); match != nil {
			entries = append(entries, kernels.Kernel{Symbol: match[1]})
		}
		if len(entries) == 0 {
			continue
		}
		kernel := &entries[len(entries)-1]
		if match := spills.FindStringSubmatch(line); match != nil {
			kernel.StackBytes = number(match[1])
			kernel.SpillBytes = number(match[2]) + number(match[3])
		}
		if match := registers.FindStringSubmatch(line); match != nil {
			kernel.Registers = number(match[1])
		}
		if match := shared.FindStringSubmatch(line); match != nil {
			kernel.SharedBytes = number(match[1])
		}
	}
	return entries, assembler.ReplaceAllString(log, "")
}

// number reads what a pattern has matched as digits.
func number(digits string) int {
	n, _ := strconv.Atoi(digits)
	return n
}

// compilerVersion is NVRTC's name and version, as its PTX tells it.
func compilerVersion(ptx []byte) string {
	if match := version.FindSubmatch(ptx); match != nil {
		return "NVRTC " + string(match[1])
	}
	return "NVRTC"
}

// readSources returns all files of a folder that kernels can be made of.
func readSources(folder string) (map[string]string, error) {
	sources := map[string]string{}
	for _, pattern := range kernels.SourcePatterns {
		paths, err := filepath.Glob(filepath.Join(folder, pattern))
		if err != nil {
			return nil, err
		}
		for _, path := range paths {
			content, err := os.ReadFile(path)
			if err != nil {
				return nil, err
			}
			sources[filepath.Base(path)] = string(content)
		}
	}
	return sources, nil
}

func isPTX(target string) bool { return strings.HasPrefix(target, "compute_") }

func hash(content []byte) string {
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:])
}

func readCompressed(path string) ([]byte, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return kernels.Decompress(content)
}

// writeCompressed writes no time and no name, so that equal images give equal
// files.
func writeCompressed(path string, image []byte) error {
	var compressed bytes.Buffer
	writer, err := gzip.NewWriterLevel(&compressed, gzip.BestCompression)
	if err != nil {
		return err
	}
	if _, err := writer.Write(image); err != nil {
		return err
	}
	if err := writer.Close(); err != nil {
		return err
	}
	return os.WriteFile(path, compressed.Bytes(), 0o644)
}
