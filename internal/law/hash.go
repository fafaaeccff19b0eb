package law

// Hashes of the whole law, by which another implementation of it is compared
// with this one. They are sums, so that the parts may be hashed in any order and
// on any number of threads.

// HashMasses returns the sum, modulo 2^64, of a mix of each surprise from first
// down to last and its mass.
func HashMasses(first, last int32) (hash uint64) {
	for q := first; q >= last; q-- {
		hash += mix(Mass(q) + uint64(-q)*golden)
	}
	return hash
}

// HashDraws returns the sum, modulo 2^64, of a mix of the number and the target
// of each draw from first to before end. Draw i has a seed, a purpose and a total
// that are mixed from i.
func HashDraws(first, end uint64) (hash uint64) {
	for i := first; i < end; i++ {
		seed := mix(i)
		u := Uniform(seed, i, uint32(seed>>7), uint32(i%4)+1)
		total := mix(seed)>>2 + 1 // at most 2^62
		hash += mix(Target(u, total) + i*golden)
	}
	return hash
}

const golden = 0x9E3779B97F4A7C15

// mix is the finalizer of SplitMix64: Steele, Lea and Flood, "Fast splittable
// pseudorandom number generators", 2014, https://doi.org/10.1145/2660193.2660195.
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xBF58476D1CE4E5B9
	x = (x ^ x>>27) * 0x94D049BB133111EB
	return x ^ x>>31
}
