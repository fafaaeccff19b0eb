package topk_test

import (
	"testing"

	"github.com/ai-kernel-factory/aikf/topk"
)

func BenchmarkPure200(b *testing.B) {
	rows := rows32(50304)
	s := topk.Selector[float32]{Options: topk.Options{Tier: "pure"}}
	dst := topk.NewResult[float32](1, 200)
	for i := 0; i < b.N; i++ {
		s.Select(dst, rows[i&3], topk.Row(50304, 200))
	}
}

func BenchmarkPure(b *testing.B) {
	rows := rows32(50304)
	s := topk.Selector[float32]{Options: topk.Options{Tier: "pure"}}
	dst := topk.NewResult[float32](1, 50)
	for i := 0; i < b.N; i++ {
		s.Select(dst, rows[i&3], topk.Row(50304, 50))
	}
}
