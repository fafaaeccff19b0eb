// Kernels that verify drafted tokens.
//
// verify_DT    sequences * (drafts + 1) blocks: a row each, decided in one launch
#include "verify.cuh"

KERNEL_OF(VerifyArguments, verify_bf16, kThreads, kBlocks) { verify<bf16>(arguments); }
KERNEL_OF(VerifyArguments, verify_f16, kThreads, kBlocks) { verify<f16>(arguments); }
KERNEL_OF(VerifyArguments, verify_f32, kThreads, kBlocks) { verify<f32>(arguments); }
