package cuda

import (
	"fmt"
	"math"
	"math/bits"
	"slices"
	"strings"

	"github.com/ai-kernel-factory/aikf/topk"
)

// The names of the launch plans.
const (
	// PlanBlock gives each row one block.
	PlanBlock = "block"
	// PlanCluster shares each row among the blocks of a cluster, in one launch.
	PlanCluster = "cluster"
	// PlanTwoStage selects from the chunks of each row in one launch, and merges
	// what they leave in a second.
	PlanTwoStage = "two-stage"
	// PlanAny takes any k, with a workspace that grows with it.
	PlanAny = "any"
	// PlanNone launches nothing: there are no rows or no results.
	PlanNone = "none"
)

// planNames are the plans in the order in which they are tried and listed.
var planNames = []string{PlanBlock, PlanCluster, PlanTwoStage, PlanAny}

// The numbers that plans are made of.
const (
	fastK           = 2048 // the largest k of every plan but "any"
	mergeCandidates = 4096 // candidates that the second stage of the two-stage plan orders at once
	narrowVocab     = 1 << 16
	clusterK        = 384 // the largest k of the plan "cluster", which only proves bounds
	targetStage2    = 500 // candidates a row that the two-stage plan aims to leave for its second stage

	// Choices between plans that all fit.
	clusterBytes  = 512 << 10 // of a row, from which a cluster shares it: with fewer one block is as fast, docs/log.md
	clusterRows   = 8         // as long as every row has that many multiprocessors
	clusterMajor  = 9         // the first compute capability that has clusters
	clusterBlocks = 8         // blocks that share a row; more are not portable
	clusterChunk  = 4096      // logits that a block of a cluster has at least
)

// groupCounts are the numbers of group maxima that a kernel can take.
var groupCounts = []int{128, 256, 512}

// groupsByK lists how many group maxima bound the k-th value, up to that k. A bound
// is proven up to three quarters of the groups, and guessed beyond.
var groupsByK = []struct{ k, groups int }{{128, 256}, {fastK, 512}}

// blockThreads are those of every selection kernel: kThreads of select.cu.
const blockThreads = 512

// Architecture is what a plan depends on of a device.
type Architecture struct {
	Name              string // "sm_90"
	Major, Minor      int    // compute capability
	Multiprocessors   int
	SharedMemoryBytes int // that a block may use
	ClusterBlocks     int // the most blocks of a cluster, 0 without clusters
}

// Cluster reports whether blocks can share a row.
func (a Architecture) Cluster() bool { return a.ClusterBlocks > 1 }

// architectures have the multiprocessors of a common card each.
var architectures = []Architecture{
	{"sm_80", 8, 0, 108, 163 << 10, 0},    // A100
	{"sm_86", 8, 6, 84, 99 << 10, 0},      // RTX A6000
	{"sm_89", 8, 9, 142, 99 << 10, 0},     // L40S
	{"sm_90", 9, 0, 132, 227 << 10, 16},   // H100 SXM
	{"sm_100", 10, 0, 148, 227 << 10, 16}, // B200
	{"sm_120", 12, 0, 170, 99 << 10, 8},   // RTX 5090
}

// Architectures lists the names that [ParseArchitecture] knows.
func Architectures() []string {
	var names []string
	for _, a := range architectures {
		names = append(names, a.Name)
	}
	return names
}

// ParseArchitecture returns a common card of the architecture with that name,
// such as "sm_90". Another name is an error that wraps [ErrUnsupported].
func ParseArchitecture(name string) (Architecture, error) {
	for _, a := range architectures {
		if a.Name == name {
			return a, nil
		}
	}
	return Architecture{}, fmt.Errorf("cuda: architecture %q, want one of %s: %w",
		name, strings.Join(Architectures(), ", "), ErrUnsupported)
}

// PlanShape is what a plan depends on of a call.
type PlanShape struct {
	Rows, Vocab, K int
	DType          DType
}

// PlanOptions steer a plan. The zero value lets it choose everything.
type PlanOptions struct {
	// Name forces a plan. Empty: the fastest for the shape.
	Name string
	// Groups overrides how many group maxima bound the k-th value: 128, 256 or
	// 512. 0: by k.
	Groups int
	// Chunks overrides into how many parts a row is cut by the two-stage plan,
	// and how many blocks share it in the cluster plan. 0: by the shape.
	Chunks int
	// TargetCandidates overrides how many candidates a row leaves for the second
	// stage, 500 by default. The two-stage plan cuts a row into round(target/k)
	// chunks. The others take the fewest groups that are neither below half the
	// target nor below k, since about twice as many logits as groups pass.
	TargetCandidates int
}

// Plan says how a batch is selected: which kernels run on which grid. It
// changes the time, never the answer.
type Plan struct {
	Name           string   `json:"name"`
	Groups         int      `json:"groups"`     // group maxima that bound the k-th value
	Chunks         int      `json:"chunks"`     // parts of a row, each with a block of its own
	ChunkSize      int      `json:"chunk_size"` // logits in a part; the last may have fewer
	Kernels        []Launch `json:"kernels"`    // in order; none without rows or results
	WorkspaceBytes int      `json:"workspace_bytes"`
}

// Launch is one kernel of a plan.
type Launch struct {
	Symbol  string `json:"symbol"`
	Grid    int    `json:"grid"`    // blocks
	Block   int    `json:"block"`   // threads a block
	Cluster int    `json:"cluster"` // blocks a cluster, 1: no cluster
}

// String is one line for people.
func (p Plan) String() string {
	if p.Name == PlanNone {
		return "none: there are no results"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s, %d groups, %d chunks of %d, workspace %d bytes:", p.Name, p.Groups, p.Chunks, p.ChunkSize, p.WorkspaceBytes)
	for _, l := range p.Kernels {
		fmt.Fprintf(&b, " %s<<<%d, %d>>>", l.Symbol, l.Grid, l.Block)
		if l.Cluster > 1 {
			fmt.Fprintf(&b, " in clusters of %d", l.Cluster)
		}
	}
	return b.String()
}

// ChoosePlan is a pure function of its arguments. A shape that is none is an
// error that wraps [topk.ErrShape] or [topk.ErrDType]; a plan, a number of
// groups or of chunks that does not fit it wraps [ErrUnsupported].
func ChoosePlan(shape PlanShape, arch Architecture, options PlanOptions) (Plan, error) {
	if err := shape.validate(); err != nil {
		return Plan{}, err
	}
	if err := options.validate(); err != nil {
		return Plan{}, err
	}
	if shape.Rows == 0 || shape.K == 0 {
		return Plan{Name: PlanNone}, nil
	}
	if options.Name == "" {
		options.Name = fastest(shape, arch)
	}
	return newPlan(shape, arch, options)
}

// Plans lists every plan that fits the shape, the one of [ChoosePlan] first.
// options.Name is not used.
func Plans(shape PlanShape, arch Architecture, options PlanOptions) ([]Plan, error) {
	options.Name = ""
	chosen, err := ChoosePlan(shape, arch, options)
	if err != nil {
		return nil, err
	}
	plans := []Plan{chosen}
	if chosen.Name == PlanNone {
		return plans, nil
	}
	for _, name := range planNames {
		options.Name = name
		if plan, err := newPlan(shape, arch, options); err == nil && name != chosen.Name {
			plans = append(plans, plan)
		}
	}
	return plans, nil
}

func (s PlanShape) validate() error {
	if err := s.DType.validate(); err != nil {
		return err
	}
	return topk.Shape{Rows: s.Rows, Vocab: s.Vocab, K: s.K, Expand: true}.Validate()
}

// validate reports options that fit no shape.
func (o PlanOptions) validate() error {
	switch {
	case o.Name != "" && !slices.Contains(planNames, o.Name):
		return fmt.Errorf("cuda: plan %q, want one of %s: %w", o.Name, strings.Join(planNames, ", "), ErrUnsupported)
	case o.Groups != 0 && !slices.Contains(groupCounts, o.Groups):
		return fmt.Errorf("cuda: groups = %d, want one of %v: %w", o.Groups, groupCounts, ErrUnsupported)
	case o.Chunks < 0:
		return fmt.Errorf("cuda: chunks = %d is negative: %w", o.Chunks, ErrUnsupported)
	case o.TargetCandidates < 0:
		return fmt.Errorf("cuda: target candidates = %d is negative: %w", o.TargetCandidates, ErrUnsupported)
	}
	return nil
}

// fastest names the plan for the shape, of those that fit.
func fastest(s PlanShape, arch Architecture) string {
	switch {
	case s.K > fastK:
		return PlanAny
	case arch.Cluster() && s.K <= clusterK && s.Vocab*s.DType.Bytes() >= clusterBytes && s.Rows <= arch.Multiprocessors/clusterRows:
		return PlanCluster
	}
	return PlanBlock
}

// newPlan makes the plan with the name of the options.
func newPlan(s PlanShape, arch Architecture, o PlanOptions) (Plan, error) {
	p := Plan{Name: o.Name, Groups: o.Groups, Chunks: o.Chunks}
	unfit := func(format string, args ...any) (Plan, error) {
		return Plan{}, fmt.Errorf("cuda: plan %q %s: %w", o.Name, fmt.Sprintf(format, args...), ErrUnsupported)
	}
	if p.Groups == 0 {
		p.Groups = groups(s.K, o)
	}
	if most := mostK(p.Name); s.K > most {
		return unfit("takes k up to %d, not %d", most, s.K)
	}
	workspaceWords := 0 // 64-bit words a row
	switch p.Name {
	case PlanCluster:
		if p.Chunks == 0 {
			p.Chunks = clusterChunks(s, arch)
		}
		if !arch.Cluster() {
			return unfit("needs thread block clusters, which %s does not have", arch.Name)
		}
		if p.Chunks < 2 || p.Chunks > arch.ClusterBlocks || p.Chunks&(p.Chunks-1) != 0 {
			return unfit("has %d blocks a row, want a power of two from 2 to %d", p.Chunks, arch.ClusterBlocks)
		}
	case PlanTwoStage:
		if p.Chunks == 0 {
			p.Chunks = stage1Chunks(s, o)
		}
		if p.Chunks < 1 || p.Chunks > 1 && !chunksFit(s, p.Chunks) {
			return unfit("has %d chunks, which leave k = %d more than %d candidates or fewer logits than k (vocab = %d)",
				p.Chunks, s.K, mergeCandidates, s.Vocab)
		}
		workspaceWords = p.Chunks * s.K
	case PlanAny:
		workspaceWords = 1 << bits.Len(uint(s.K-1))
		fallthrough
	default:
		if p.Chunks > 1 {
			return unfit("does not cut a row into %d chunks", p.Chunks)
		}
		p.Chunks = 1
	}
	if s.Rows > math.MaxInt32/p.Chunks {
		return unfit("launches rows = %d times chunks = %d blocks, more than %d", s.Rows, p.Chunks, math.MaxInt32)
	}
	if workspaceWords > math.MaxInt/8/s.Rows {
		return unfit("needs %d workspace words for each of %d rows, which overflows", workspaceWords, s.Rows)
	}
	p.WorkspaceBytes = 8 * workspaceWords * s.Rows
	p.ChunkSize = chunkSize(s, p.Chunks)
	p.Kernels = kernelsOf(p, s)
	return p, nil
}

// mostK returns the largest k that the plan takes.
func mostK(name string) int {
	switch name {
	case PlanAny:
		return math.MaxInt32
	case PlanCluster:
		return clusterK
	}
	return fastK
}

// groups chooses how many group maxima bound the k-th value.
func groups(k int, o PlanOptions) int {
	most := groupCounts[len(groupCounts)-1]
	if o.TargetCandidates > 0 {
		for _, n := range groupCounts {
			if n >= min(k, most) && n >= min(o.TargetCandidates/2, most) {
				return n
			}
		}
	}
	for _, row := range groupsByK {
		if k <= row.k {
			return min(row.groups, most)
		}
	}
	return most
}

// clusterChunks chooses how many blocks share a row.
func clusterChunks(s PlanShape, arch Architecture) int {
	chunks := min(clusterBlocks, arch.ClusterBlocks)
	for chunks > 2 && s.Vocab/chunks < clusterChunk {
		chunks /= 2
	}
	return chunks
}

// stage1Chunks chooses into how many chunks the two-stage plan cuts a row.
func stage1Chunks(s PlanShape, o PlanOptions) int {
	target := min(o.TargetCandidates, mergeCandidates)
	if target == 0 {
		target = targetStage2
	}
	chunks := max(1, min((target+s.K/2)/s.K, mergeCandidates/s.K))
	for chunks > 1 && !chunksFit(s, chunks) {
		chunks--
	}
	return chunks
}

// chunksFit reports whether each chunk has k logits, and all leave few enough
// candidates.
func chunksFit(s PlanShape, chunks int) bool {
	last := s.Vocab - (chunks-1)*chunkSize(s, chunks)
	return chunks <= mergeCandidates/s.K && last >= s.K
}

// chunkSize returns the logits of every chunk but the last. Chunks begin at whole
// vectors of 16 bytes of an aligned row.
func chunkSize(s PlanShape, chunks int) int {
	if chunks == 1 {
		return s.Vocab
	}
	vector := 16 / s.DType.Bytes()
	return ((s.Vocab+chunks-1)/chunks + vector - 1) / vector * vector
}

// kernelsOf lists the launches of a plan.
func kernelsOf(p Plan, s PlanShape) []Launch {
	prefix := "select_" + dtypes[s.DType].symbol + "_"
	switch p.Name {
	case PlanCluster:
		return []Launch{{prefix + "cluster", s.Rows * p.Chunks, blockThreads, p.Chunks}}
	case PlanTwoStage:
		return []Launch{{prefix + "stage1", s.Rows * p.Chunks, blockThreads, 1}, {prefix + "stage2", s.Rows, blockThreads, 1}}
	case PlanAny:
		return []Launch{{prefix + "any", s.Rows, blockThreads, 1}}
	}
	return []Launch{{prefix + "block" + width(s), s.Rows, blockThreads, 1}}
}

// narrow ends the names of kernels whose candidates, 16 bits of value and 16 of
// index, fit a 32-bit word.
const narrow = "_narrow"

// width tells the narrow kernels from those for any row.
func width(s PlanShape) string {
	if s.DType.Bytes() == 2 && s.Vocab <= narrowVocab {
		return narrow
	}
	return ""
}
