package sampling

// Token is the id of a token: its index in a row of logits.
type Token = int32

// NoToken stands where no token could be sampled.
const NoToken Token = -1
