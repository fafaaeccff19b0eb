package driver

// function is a function of the driver library.
type function int

const (
	cuGetErrorName function = iota
	cuGetErrorString
	cuDriverGetVersion
	cuInit
	cuDeviceGetCount
	cuDeviceGet
	cuDeviceGetName
	cuDeviceTotalMem
	cuDeviceGetAttribute
	cuDevicePrimaryCtxRetain
	cuDevicePrimaryCtxRelease
	cuCtxPushCurrent
	cuCtxPopCurrent
	cuCtxGetDevice
	cuCtxSynchronize
	cuLibraryLoadData
	cuLibraryUnload
	cuLibraryGetKernel
	cuKernelGetFunction
	cuKernelSetAttribute
	cuModuleLoadDataEx
	cuModuleUnload
	cuOccupancyMaxActiveClusters
	cuLaunchKernelEx
	cuMemAlloc
	cuMemFree
	cuMemcpyHtoDAsync
	cuMemcpyDtoHAsync
	cuMemsetD8Async
	cuPointerGetAttribute
	cuStreamCreate
	cuStreamDestroy
	cuStreamSynchronize
	cuStreamGetCtx
	cuStreamBeginCapture
	cuStreamEndCapture
	cuGraphInstantiate
	cuGraphDestroy
	cuGraphLaunch
	cuGraphExecDestroy
	cuEventCreate
	cuEventDestroy
	cuEventRecord
	cuEventSynchronize
	cuEventElapsedTime
	functions
)

// symbols are the names in the library. A suffix is the version of the
// interface that cuda.h of CUDA 12 calls by the plain name.
var symbols = [functions]string{
	cuGetErrorName:               "cuGetErrorName",
	cuGetErrorString:             "cuGetErrorString",
	cuDriverGetVersion:           "cuDriverGetVersion",
	cuInit:                       "cuInit",
	cuDeviceGetCount:             "cuDeviceGetCount",
	cuDeviceGet:                  "cuDeviceGet",
	cuDeviceGetName:              "cuDeviceGetName",
	cuDeviceTotalMem:             "cuDeviceTotalMem_v2",
	cuDeviceGetAttribute:         "cuDeviceGetAttribute",
	cuDevicePrimaryCtxRetain:     "cuDevicePrimaryCtxRetain",
	cuDevicePrimaryCtxRelease:    "cuDevicePrimaryCtxRelease_v2",
	cuCtxPushCurrent:             "cuCtxPushCurrent_v2",
	cuCtxPopCurrent:              "cuCtxPopCurrent_v2",
	cuCtxGetDevice:               "cuCtxGetDevice",
	cuCtxSynchronize:             "cuCtxSynchronize",
	cuLibraryLoadData:            "cuLibraryLoadData",
	cuLibraryUnload:              "cuLibraryUnload",
	cuLibraryGetKernel:           "cuLibraryGetKernel",
	cuKernelGetFunction:          "cuKernelGetFunction",
	cuKernelSetAttribute:         "cuKernelSetAttribute",
	cuModuleLoadDataEx:           "cuModuleLoadDataEx",
	cuModuleUnload:               "cuModuleUnload",
	cuOccupancyMaxActiveClusters: "cuOccupancyMaxActiveClusters",
	cuLaunchKernelEx:             "cuLaunchKernelEx",
	cuMemAlloc:                   "cuMemAlloc_v2",
	cuMemFree:                    "cuMemFree_v2",
	cuMemcpyHtoDAsync:            "cuMemcpyHtoDAsync_v2",
	cuMemcpyDtoHAsync:            "cuMemcpyDtoHAsync_v2",
	cuMemsetD8Async:              "cuMemsetD8Async",
	cuPointerGetAttribute:        "cuPointerGetAttribute",
	cuStreamCreate:               "cuStreamCreate",
	cuStreamDestroy:              "cuStreamDestroy_v2",
	cuStreamSynchronize:          "cuStreamSynchronize",
	cuStreamGetCtx:               "cuStreamGetCtx",
	cuStreamBeginCapture:         "cuStreamBeginCapture_v2",
	cuStreamEndCapture:           "cuStreamEndCapture",
	cuGraphInstantiate:           "cuGraphInstantiateWithFlags",
	cuGraphDestroy:               "cuGraphDestroy",
	cuGraphLaunch:                "cuGraphLaunch",
	cuGraphExecDestroy:           "cuGraphExecDestroy",
	cuEventCreate:                "cuEventCreate",
	cuEventDestroy:               "cuEventDestroy_v2",
	cuEventRecord:                "cuEventRecord",
	cuEventSynchronize:           "cuEventSynchronize",
	cuEventElapsedTime:           "cuEventElapsedTime",
}

// Symbols lists the functions that Open looks for.
func Symbols() []string { return symbols[:] }
