package topic

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestNamesAndFiltersAreValidatedAsSection47Says(t *testing.T) {
	deep := strings.Repeat("/", MaxLevels-1)
	for _, c := range []struct {
		s            string
		name, filter error
	}{
		{"a", nil, nil}, {"/", nil, nil}, {"a//b/", nil, nil}, {"$SYS/x", nil, nil}, {" ", nil, nil}, {"\uFEFFa", nil, nil},
		{"", ErrEmpty, ErrEmpty}, // [MQTT-4.7.3-1]
		{"#", ErrWildcard, nil}, {"a/#", ErrWildcard, nil}, {"+", ErrWildcard, nil}, {"+/+/#", ErrWildcard, nil}, {"/+", ErrWildcard, nil},
		{"a#", ErrWildcard, ErrHash}, {"a/#/b", ErrWildcard, ErrHash}, {"##", ErrWildcard, ErrHash}, {"#/", ErrWildcard, ErrHash}, // [MQTT-4.7.1-1]
		{"a+", ErrWildcard, ErrPlus}, {"a+/b", ErrWildcard, ErrPlus}, {"+a", ErrWildcard, ErrPlus}, {"++", ErrWildcard, ErrPlus}, // [MQTT-4.7.1-2]
		{"a\x00", ErrEncoding, ErrEncoding}, {"\xC0\x80", ErrEncoding, ErrEncoding}, // [MQTT-4.7.3-2]
		{deep, nil, nil}, {deep + "/", ErrLevels, ErrLevels},
		{strings.Repeat("a", MaxBytes), nil, nil}, {strings.Repeat("a", MaxBytes+1), ErrTooLong, ErrTooLong}, // [MQTT-4.7.3-3]
		{"$share/g/a", nil, nil}, {"$share/g//x", nil, nil}, {"$share/g/#", ErrWildcard, nil}, {"$SHARE/g", nil, nil}, {"$shared/g", nil, nil},
		{"$share", nil, ErrShare}, {"$share/", nil, ErrShare}, {"$share/g", nil, ErrShare}, {"$share/g/", nil, ErrShare}, // [MQTT-4.8.2-1]
		{"$share//x", nil, ErrShare}, {"$share/+/x", ErrWildcard, ErrShare}, {"$share/a#/x", ErrWildcard, ErrShare}, // [MQTT-4.8.2-2]
		{"$share/g/a#", ErrWildcard, ErrHash},
	} {
		if err := ValidateName(c.s); !errors.Is(err, c.name) {
			t.Errorf("name %.20q: %v, want %v", c.s, err, c.name)
		}
		if err := ValidateFilter(c.s); !errors.Is(err, c.filter) {
			t.Errorf("filter %.20q: %v, want %v", c.s, err, c.filter)
		}
	}
}

func TestASharedSubscriptionIsTakenApart(t *testing.T) { // section 4.8.2
	for filter, want := range map[string][2]string{"$share/g/a/+": {"g", "a/+"}, "$share/g//x": {"g", "/x"}, "$share/$/$SYS/#": {"$", "$SYS/#"}} {
		if share, inner, shared, err := ParseShared(filter); share != want[0] || inner != want[1] || !shared || err != nil {
			t.Errorf("%s: %q %q %v %v", filter, share, inner, shared, err)
		}
	}
	if _, inner, shared, err := ParseShared("a/b"); inner != "a/b" || shared || err != nil {
		t.Errorf("a plain filter: %q %v %v", inner, shared, err)
	}
}

var matchCases = []struct {
	filter, name string
	want         bool
}{
	{"a", "a", true}, {"a", "A", false}, {"a", "a/", false}, {"a/", "a", false}, {"a/b", "a", false}, {"a", "a/b", false},
	{"sport/#", "sport", true}, {"sport/#", "sport/", true}, {"sport/#", "sport/a/b", true}, {"sport/#", "sports", false}, // X5-4.7.1-1
	{"#", "a", true}, {"#", "/", true}, {"#", "a/b/c", true},
	{"sport/+", "sport", false}, {"sport/+", "sport/", true}, {"sport/+", "sport/a", true}, {"sport/+", "sport/a/b", false}, // X5-4.7.1-2
	{"+", "/finance", false}, {"+/+", "/finance", true}, {"/+", "/finance", true},
	{"+/#", "a", true}, {"+/#", "/", true}, {"+/+/#", "a", false}, {"+/+/#", "a/b", true}, {"/#", "/", true}, {"/#", "a", false},
	{"a/+/c", "a/b/c", true}, {"a/+/c", "a//c", true}, {"a/+/c", "a/b/d", false}, {"a/+/c", "a/b/c/d", false},
	{"a//b", "a//b", true}, {"a//b", "a/b", false},
	{"#", "$SYS/x", false}, {"+/x", "$SYS/x", false}, {"+", "$SYS", false}, {"+/#", "$SYS", false}, // [MQTT-4.7.2-1]
	{"$SYS/#", "$SYS/x", true}, {"$SYS/+", "$SYS/x", true}, {"$SYS/#", "$SYS", true}, {"a/+", "a/$x", true}, {"a/#", "a/$x/y", true},
}

func TestMatchingFollowsSection47(t *testing.T) {
	for _, c := range matchCases {
		if got := Match(c.filter, c.name); got != c.want {
			t.Errorf("Match(%q, %q) = %v", c.filter, c.name, got)
		}
		if got := naive(c.filter, c.name); got != c.want {
			t.Errorf("the oracle says %v for %q, %q", got, c.filter, c.name)
		}
		checkAgainstOracle(t, []string{c.filter}, []string{c.name})
	}
}

// naive is the oracle: section 4.7 over split levels.
func naive(filter, name string) bool {
	f, n := strings.Split(filter, "/"), strings.Split(name, "/")
	if strings.HasPrefix(name, "$") && (f[0] == "+" || f[0] == "#") {
		return false
	}
	if f[len(f)-1] == "#" {
		if len(n) < len(f)-1 {
			return false
		}
		f = f[:len(f)-1]
		n = n[:len(f)]
	}
	if len(f) != len(n) {
		return false
	}
	for i := range f {
		if f[i] != "+" && f[i] != n[i] {
			return false
		}
	}
	return true
}

// checkAgainstOracle puts filters into a Tree and names into Names, and compares
// every match with the oracle.
func checkAgainstOracle(t tester, filters, names []string) {
	t.Helper()
	var tree Tree[string]
	var index Names[string]
	for _, f := range filters {
		tree.Set(f, f)
	}
	for _, n := range names {
		index.Set(n, n)
	}
	filters = unique(filters, strings.Compare)
	names = unique(names, Compare)
	for _, n := range names {
		var got, want []string
		tree.Match(n, func(v string) { got = append(got, v) })
		for _, f := range filters {
			if naive(f, n) {
				want = append(want, f)
			}
			if Match(f, n) != naive(f, n) {
				t.Fatalf("Match(%q, %q) = %v", f, n, Match(f, n))
			}
		}
		if slices.Sort(got); !slices.Equal(got, want) {
			t.Fatalf("tree: %q matches %q, want %q", n, got, want)
		}
	}
	for _, f := range filters {
		checkNames(t, &index, f, names)
	}
}

// checkNames compares Names.Match with the oracle from every place on, and in
// pages of one.
func checkNames(t tester, index *Names[string], f string, names []string) {
	t.Helper()
	for i := -1; i < len(names); i++ {
		after := ""
		if i >= 0 {
			after = names[i]
		}
		var want, got []string
		for _, n := range names[i+1:] {
			if naive(f, n) {
				want = append(want, n)
			}
		}
		for from := after; ; {
			page := ""
			index.Match(f, from, func(name string, v string) bool { page = name; return false })
			if page == "" {
				break
			}
			got = append(got, page)
			from = page
		}
		all := []string(nil)
		index.Match(f, after, func(name, _ string) bool { all = append(all, name); return true })
		if !slices.Equal(got, want) || !slices.Equal(all, want) {
			t.Fatalf("names: %q after %q: %q and %q, want %q", f, after, got, all, want)
		}
	}
}

// tester is what testing.T and rapid.T have in common.
type tester interface {
	Helper()
	Fatalf(format string, args ...any)
}

func unique(s []string, order func(a, b string) int) []string {
	s = slices.Clone(s)
	slices.SortFunc(s, order)
	return slices.Compact(s)
}

func filterGen() *rapid.Generator[string] {
	return rapid.Custom(func(t *rapid.T) string {
		levels := rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "ab", "", "+", "+", "$x", "a!"}), 1, 5).Draw(t, "levels")
		if rapid.Bool().Draw(t, "hash") {
			levels[len(levels)-1] = "#"
		}
		return strings.Join(levels, "/")
	})
}

func nameGen() *rapid.Generator[string] {
	return rapid.Custom(func(t *rapid.T) string {
		levels := rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "ab", "", "$x", "a!", "c"}), 1, 5).Draw(t, "levels")
		if len(levels) == 1 && levels[0] == "" {
			levels = append(levels, "a")
		}
		return strings.Join(levels, "/")
	})
}

func TestTheIndexesMatchAsTheOracleDoes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		filters := rapid.SliceOfN(filterGen(), 1, 20).Draw(t, "filters")
		names := rapid.SliceOfN(nameGen(), 1, 20).Draw(t, "names")
		checkAgainstOracle(t, filters, names)
	})
}

func TestATreeBehavesAsAMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var tree Tree[int]
		model := map[string]int{}
		t.Repeat(map[string]func(*rapid.T){
			"set": func(t *rapid.T) {
				f, v := filterGen().Draw(t, "filter"), rapid.Int().Draw(t, "value")
				tree.Set(f, v)
				model[f] = v
			},
			"delete": func(t *rapid.T) {
				f := filterGen().Draw(t, "filter")
				_, want := model[f]
				if got := tree.Delete(f); got != want {
					t.Fatalf("delete of %q: %v", f, got)
				}
				delete(model, f)
			},
			"": func(t *rapid.T) {
				if tree.Len() != len(model) {
					t.Fatalf("length %d, want %d", tree.Len(), len(model))
				}
				var all []string
				tree.All(func(f string, v int) {
					all = append(all, f)
					if got, ok := tree.Get(f); !ok || got != v || model[f] != v {
						t.Fatalf("%q is %d, Get says %d, want %d", f, v, got, model[f])
					}
				})
				if len(all) != len(model) || !slices.IsSorted(all) {
					t.Fatalf("all: %q", all)
				}
				if len(model) == 0 && len(tree.nodes)-len(tree.free) > 1 {
					t.Fatalf("an empty tree holds %d nodes", len(tree.nodes)-len(tree.free))
				}
				if len(model) == 0 && len(tree.edges) > 0 {
					t.Fatalf("an empty tree holds edges %v", tree.edges)
				}
			},
		})
	})
}

func TestNamesStaySortedOverManyChanges(t *testing.T) {
	var index Names[int]
	model := map[string]int{}
	seed := uint32(1)
	for i := range 20_000 {
		seed = seed*1664525 + 1013904223
		name := fmt.Sprintf("a/%d/%d", seed>>20%7, seed>>8%2000)
		_, had := model[name]
		if i > 12_000 || seed>>5%3 == 0 {
			if index.Delete(name) != had {
				t.Fatalf("delete of %s: want %v", name, had)
			}
			delete(model, name)
			continue
		}
		index.Set(name, i)
		model[name] = i
	}
	last, n := "", 0
	index.All(func(name string, v int) {
		if n++; Compare(last, name) >= 0 || model[name] != v {
			t.Fatalf("%s after %s, value %d, want %d", name, last, v, model[name])
		}
		if got, ok := index.Get(name); !ok || got != v {
			t.Fatalf("Get of %s: %d %v", name, got, ok)
		}
		last = name
	})
	if n != len(model) || index.Len() != n {
		t.Errorf("%d names, length %d, want %d", n, index.Len(), len(model))
	}
	for name := range model {
		index.Delete(name)
	}
	if index.Len() != 0 || len(index.chunks) != 0 {
		t.Errorf("emptied: %d names in %d chunks", index.Len(), len(index.chunks))
	}
}

func TestALevelStandsWithAllBelowIt(t *testing.T) {
	var index Names[bool]
	for _, n := range []string{"a!", "a/b", "a", "a!/b", "a/b/c", "aa", "/", "a/"} {
		index.Set(n, true)
	}
	var got []string
	index.All(func(name string, _ bool) { got = append(got, name) })
	if want := []string{"/", "a", "a/", "a/b", "a/b/c", "a!", "a!/b", "aa"}; !slices.Equal(got, want) {
		t.Errorf("order %q, want %q", got, want)
	}
}

func TestNamesGoOnBehindAPlaceThatIsGone(t *testing.T) {
	var index Names[bool]
	for i := range 3 * chunkMax {
		index.Set(fmt.Sprintf("d/%04d/t", i), true)
	}
	for after, want := range map[string]string{"d/0010/t!": "d/0011/t", "d": "d/0000/t", "d/0500": "d/0500/t", "d/9": ""} {
		got := ""
		index.Match("d/+/t", after, func(name string, _ bool) bool { got = name; return false })
		if got != want {
			t.Errorf("after %q: %q, want %q", after, got, want)
		}
	}
}

// A filter and a name of the greatest depth are no danger to the stack, and a
// hostile set of filters costs no more than the filters there are.
func TestTheDeepestFilterMatches(t *testing.T) {
	var tree Tree[int]
	plus := strings.TrimSuffix(strings.Repeat("+/", MaxLevels), "/")
	name := strings.TrimSuffix(strings.Repeat("a/", MaxLevels), "/")
	tree.Set(plus, 1)
	tree.Set(name[:len(name)-1]+"+", 2)
	tree.Set(name[:len(name)-1]+"#", 3)
	sum := 0
	tree.Match(name, func(v int) { sum += v })
	tree.Match(name+strings.Repeat("/a", 30_000), func(v int) { sum += 10 * v })
	if sum != 6+30 {
		t.Errorf("sum of matches %d", sum)
	}
	for _, f := range []string{plus, name[:len(name)-1] + "+", name[:len(name)-1] + "#"} {
		if !tree.Delete(f) || tree.Delete(f) {
			t.Errorf("delete of %.20s", f)
		}
	}
	if tree.Len() != 0 || len(tree.edges) != 0 {
		t.Errorf("%d filters and %d edges are left", tree.Len(), len(tree.edges))
	}
}

func FuzzMatch(f *testing.F) {
	for _, c := range matchCases {
		f.Add(c.filter, c.name, "a/+", "a/b")
	}
	f.Fuzz(func(t *testing.T, f1, n1, f2, n2 string) {
		var filters, names []string
		for _, f := range []string{f1, f2} {
			if _, inner, _, err := ParseShared(f); err == nil && ValidateFilter(f) == nil {
				filters = append(filters, inner)
			}
		}
		for _, n := range []string{n1, n2} {
			if ValidateName(n) == nil {
				names = append(names, n)
			}
		}
		checkAgainstOracle(t, filters, names)
	})
}
