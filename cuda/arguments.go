package cuda

// selectArguments mirrors SelectArguments of kernels/arguments.h: the argument
// of every kernel but those that sample, passed by value.
type selectArguments struct {
	logits, values, indices Pointer
	rowK, rowLengths        Pointer
	workspace               Pointer
	stride, resultStride    int64
	rows, vocab, k          int32
	groups, chunks          int32
	smallest                int32
	indexBytes              int32
	reserved                int32
}

// sampleArguments mirrors SampleArguments: the argument of the kernels that sample and edit.
type sampleArguments struct {
	selectArguments
	rowTemperature, rowTopK, rowTopP, rowMinP, rowTypicalP                        Pointer
	rowTopNSigma, rowXtcProbability, rowXtcThreshold, rowRepetition, rowFrequency Pointer
	rowPresence, rowSeed, rowPosition, tokens, status                             Pointer
	kept, keptCount, keptProbabilities, logprobs, ranks                           Pointer
	topIds, topLogprobs, mask, biasIds, bias                                      Pointer
	penaltyIds, penaltyCounts                                                     Pointer
	maskStride                                                                    int64
	seed, position                                                                uint64
	maskWords, biases, penalties                                                  int32
	temperature                                                                   float32
	topK                                                                          int32
	topP, minP, typicalP, topNSigma, xtcProbability                               float32
	xtcThreshold, repetition, frequency, presence, softcap                        float32
	greedyBelow                                                                   float32
	draws                                                                         int32
	firstDraw                                                                     uint32
	rowDraws, replacement, minPLast, invalidToken, topCount                       int32
	processed, told, unused                                                       int32
}

// lawArguments mirrors LawArguments: how rows of logits become laws of tokens.
type lawArguments struct {
	logits                                    Pointer
	rowTemperature, rowTopK, rowTopP, rowMinP Pointer
	stride                                    int64
	temperature                               float32
	topK                                      int32
	topP, minP, softcap, greedyBelow          float32
	minPLast, k, groups, reserved             int32
}

// verifyArguments mirrors VerifyArguments: the argument of the kernels that verify drafts.
type verifyArguments struct {
	target, draft                        lawArguments
	probabilities, drafted, draftedCount Pointer
	rowSeed, rowPosition                 Pointer
	tokens, accepted, status, workspace  Pointer
	draftedStride, resultStride          int64
	seed, position                       uint64
	sequences, drafts, vocab             int32
	indexBytes, draftedBytes             int32
	firstDraw                            uint32
	rowDraws, invalidToken               int32
}
