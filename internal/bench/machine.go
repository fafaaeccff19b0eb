package bench

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/ai-kernel-factory/aikf/topk"
)

// Machine is where a record was measured.
type Machine struct {
	CPU     string   `json:"cpu"`
	Cores   int      `json:"cores"`
	OS      string   `json:"os"`
	Arch    string   `json:"arch"`
	Go      string   `json:"go"`
	Tiers   []string `json:"tiers"`             // best first
	Virtual bool     `json:"virtual,omitempty"` // known to be a virtual machine
}

// ThisMachine describes the machine that runs.
func ThisMachine() Machine {
	m := Machine{
		CPU: "unknown", Cores: runtime.NumCPU(), OS: runtime.GOOS, Arch: runtime.GOARCH,
		Go: runtime.Version(), Tiers: topk.Tiers(),
	}
	switch runtime.GOOS {
	case "linux":
		cpuinfo, _ := os.ReadFile("/proc/cpuinfo")
		for line := range strings.Lines(string(cpuinfo)) {
			name, value, _ := strings.Cut(line, ":")
			switch name, value = strings.TrimSpace(name), strings.TrimSpace(value); {
			case name == "model name" && value != "":
				m.CPU = value
			case name == "flags" && strings.Contains(value, " hypervisor"):
				m.Virtual = true
			}
		}
	case "darwin":
		if brand, err := exec.Command("sysctl", "-n", "machdep.cpu.brand_string").Output(); err == nil {
			m.CPU = strings.TrimSpace(string(brand))
		}
	case "windows":
		if id := os.Getenv("PROCESSOR_IDENTIFIER"); id != "" {
			m.CPU = id
		}
	}
	return m
}

// module is the path of the project.
const module = "github.com/ai-kernel-factory/aikf"

// Commit returns the project's commit: the one that the program was built from,
// or the one checked out here, or "unknown".
func Commit() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		settings := map[string]string{}
		for _, s := range info.Settings {
			settings[s.Key] = s.Value
		}
		if revision := settings["vcs.revision"]; revision != "" {
			return dirty(revision, settings["vcs.modified"] == "true")
		}
		if v := info.Main.Version; info.Main.Path == module && v != "" && v != "(devel)" {
			return v
		}
	}
	root, err := git("rev-parse", "--show-toplevel")
	if err != nil {
		return "unknown"
	}
	// Another project's checkout tells nothing.
	goMod, err := os.ReadFile(filepath.Join(root, "go.mod"))
	if err != nil || !strings.HasPrefix(string(goMod), "module "+module+"\n") {
		return "unknown"
	}
	revision, err := git("rev-parse", "HEAD")
	if err != nil {
		return "unknown"
	}
	// Only what goes into the program: a new record is no change of it.
	changes, err := git("status", "--porcelain", "--", ":/go.mod", ":/*.go", ":/*.s", ":/*.py", ":/*.c", ":/*.safetensors", ":/cuda/kernels")
	return dirty(revision, err != nil || changes != "")
}

func dirty(revision string, modified bool) string {
	if modified {
		return revision + "-dirty"
	}
	return revision
}

func git(args ...string) (string, error) {
	out, err := exec.Command("git", args...).Output()
	return strings.TrimSpace(string(out)), err
}
