package cpu

import "sync"

// Model returns the name of the CPU's model as the system tells it, or "".
var Model = sync.OnceValue(model)
