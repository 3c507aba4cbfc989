package topic

import (
	"fmt"
	"runtime"
	"testing"
)

// millionFilters is a fleet: 900,000 exact filters, 100,000 with a wildcard.
func millionFilters(tree *Tree[*int]) {
	v := new(int)
	for i := range 1_000_000 {
		switch {
		case i%20 == 0:
			tree.Set(fmt.Sprintf("plant/%d/line/+/temp", i), v)
		case i%20 == 10:
			tree.Set(fmt.Sprintf("plant/%d/#", i), v)
		default:
			tree.Set(fmt.Sprintf("plant/%d/line/%d/temp", i, i%97), v)
		}
	}
	tree.Set("#", v)
	tree.Set("plant/+/line/7/temp", v)
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func BenchmarkTreeMatch(b *testing.B) {
	before := heap()
	tree := new(Tree[*int])
	millionFilters(tree)
	bytesPerFilter := float64(heap()-before) / float64(tree.Len())
	names := make([]string, 1<<14)
	for i := range names {
		names[i] = fmt.Sprintf("plant/%d/line/%d/temp", i*61, i%97)
	}
	matches, i := 0, 0
	count := func(*int) { matches++ }
	b.ReportAllocs()
	for b.Loop() {
		tree.Match(names[i&(len(names)-1)], count)
		i++
	}
	b.ReportMetric(bytesPerFilter, "B/filter")
	b.ReportMetric(float64(matches)/float64(i), "matches")
}

func BenchmarkTreeSetDelete(b *testing.B) {
	tree := new(Tree[*int])
	millionFilters(tree)
	for _, f := range []string{"plant/5/line/5/hum", "plant/+/line/5/hum", "new/5/+/5/#"} {
		b.Run(f, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				tree.Set(f, nil)
				tree.Delete(f)
			}
		})
	}
}

func millionNames() *Names[*int] {
	names := new(Names[*int])
	for i := range 1_000_000 {
		names.Set(fmt.Sprintf("plant/%d/temp", i), nil)
	}
	return names
}

func BenchmarkNamesSet(b *testing.B) {
	before := heap()
	names := millionNames()
	bytesPerName := float64(heap()-before) / float64(names.Len())
	i := 0
	b.ReportAllocs()
	for b.Loop() {
		name := names.chunks[i%len(names.chunks)].items[0].name
		names.Delete(name)
		names.Set(name, nil)
		i++
	}
	b.ReportMetric(bytesPerName, "B/name")
}

// BenchmarkNamesMatch reads a page of 100 names, as a SUBSCRIBE does.
func BenchmarkNamesMatch(b *testing.B) {
	names := millionNames()
	for i := range 10_000 {
		names.Set(fmt.Sprintf("plant/%d/alarm", i*100), nil)
	}
	for _, filter := range []string{"plant/77/temp", "plant/77/#", "plant/+/temp", "plant/+/alarm", "+/+/alarm", "#"} {
		b.Run(filter, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				left := 100
				names.Match(filter, "", func(string, *int) bool { left--; return left > 0 })
			}
		})
	}
}
