package cuda

// sampleShape is what the launch of a sampling call depends on.
type sampleShape struct {
	rows, vocab int
	dtype       DType
	whole       bool // no row has a top-k, and none of the answers but tokens is asked for
	edited      bool // in the launch that samples
}

// wholeBlocks lists how many blocks have a row without a top-k, up to so many rows: most
// of its time is arithmetic, which they share, and what a cluster takes to start grows with the
// number of clusters. On an H100 32 rows of 50,304 bfloat16 took 13.7, 12.4, 13.0 and 15.3 us by
// 1, 2, 4 and 8 blocks each, and one took 13.1, 11.6, 9.7 and 8.8.
var wholeBlocks = []struct{ rows, blocks int }{{8, 8}, {16, 4}, {32, 2}}

// wholeChunk is how many logits a block has at least, of a row that several have.
const wholeChunk = 4096

// samplingThreads are those of a sampling kernel: beside those of a selection, two
// warps that settle what the draws need.
const samplingThreads = blockThreads + 64

// chooseSample returns the launch of a call. It is a pure function of its arguments,
// and changes the time, never a token.
func chooseSample(s sampleShape, arch Architecture) Launch {
	symbols := &sampleSymbols[s.dtype]
	launch := Launch{Symbol: symbols.wide, Block: samplingThreads, Cluster: 1}
	switch {
	case s.edited:
		launch.Symbol = symbols.edited
	case s.whole:
		launch.Symbol = symbols.whole
		if blocks := blocksOfWhole(s, arch); blocks > 1 {
			launch.Symbol, launch.Cluster = symbols.cluster, blocks
		}
	case width(PlanShape{DType: s.dtype, Vocab: s.vocab}) == narrow:
		launch.Symbol = symbols.narrow
	}
	launch.Grid = s.rows * launch.Cluster
	return launch
}

// blocksOfWhole chooses how many blocks have a row without a top-k.
func blocksOfWhole(s sampleShape, arch Architecture) int {
	if !arch.Cluster() {
		return 1
	}
	for _, w := range wholeBlocks {
		// The table is that of 132 multiprocessors.
		if s.rows*132 <= w.rows*arch.Multiprocessors {
			blocks := min(w.blocks, arch.ClusterBlocks)
			for blocks > 1 && s.vocab/blocks < wholeChunk {
				blocks /= 2
			}
			return blocks
		}
	}
	return 1
}

// sampleSymbols are the kernels for each type: for rows with a top-k, of few tokens and of
// any; for rows without one, by one block and by a cluster; and those that edit.
var sampleSymbols = func() (symbols [len(dtypes)]struct{ wide, narrow, whole, cluster, edited, edit string }) {
	for t, names := range dtypes {
		s := &symbols[t]
		s.wide = "sample_" + names.symbol + "_block"
		s.narrow = s.wide + narrow
		s.whole = "sample_" + names.symbol + "_whole"
		s.cluster = s.whole + clusterSuffix
		s.edited = "sample_" + names.symbol + "_edited"
		s.edit = "edit_" + names.symbol
	}
	return symbols
}()
