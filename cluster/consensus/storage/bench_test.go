package storage

import (
	"fmt"
	"path/filepath"
	"testing"

	"github.com/hashicorp/raft"
)

// BenchmarkStoreLogs shows what the mark costs: one fdatasync more than raft-boltdb's two.
func BenchmarkStoreLogs(b *testing.B) {
	for _, size := range []int{300, 64 << 10, 256 << 10} {
		for _, marked := range []bool{false, true} {
			b.Run(fmt.Sprintf("bytes=%d/mark=%v", size, marked), func(b *testing.B) {
				s, err := Open(filepath.Join(b.TempDir(), "data"), Options{})
				if err != nil {
					b.Fatal(err)
				}
				defer s.Close()
				var logs raft.LogStore = s.Logs
				if !marked {
					logs = s.log.next
				}
				b.SetBytes(int64(size))
				data := make([]byte, size)
				for i := uint64(1); b.Loop(); i++ {
					if err := logs.StoreLog(&raft.Log{Index: i, Term: 1, Data: data}); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
