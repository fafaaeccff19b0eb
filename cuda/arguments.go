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
	processed                                                                     int32
}
