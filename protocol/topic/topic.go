// Package topic knows Topic Names and Topic Filters: what is valid, what matches,
// and two indexes. A Tree holds Topic Filters and finds those that a Topic Name
// matches (subscriptions); Names holds Topic Names and finds those that a Topic
// Filter matches (retained messages).
//
// Everything works on bytes: no normalisation, letter case counts, levels may be
// empty, a leading or trailing "/" counts [MQTT-4.7.3-4].
package topic

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// Limits of a Topic Name or Topic Filter.
const (
	MaxLevels = 128   // ours; bounds every walk over levels
	MaxBytes  = 65535 // [MQTT-4.7.3-3]
)

// sharePrefix begins a shared subscription [MQTT-4.8.2-1].
const sharePrefix = "$share/"

// What can be wrong with a name or a filter; compare with errors.Is.
var (
	ErrEmpty    = errors.New("topic has no character")                                    // [MQTT-4.7.3-1]
	ErrTooLong  = errors.New("topic is longer than 65535 bytes")                          // [MQTT-4.7.3-3]
	ErrLevels   = fmt.Errorf("topic has more than %d levels", MaxLevels)                  // our limit
	ErrEncoding = errors.New("topic is not well-formed UTF-8 or holds U+0000")            // [MQTT-4.7.3-2]
	ErrWildcard = errors.New("topic name holds a wildcard character")                     // [MQTT-3.3.2-2]
	ErrPlus     = errors.New("\"+\" does not fill a whole level")                         // [MQTT-4.7.1-2]
	ErrHash     = errors.New("\"#\" is not the last level, or does not fill it")          // [MQTT-4.7.1-1]
	ErrShare    = errors.New("shared subscription is not of the form $share/name/filter") // [MQTT-4.8.2-1], [MQTT-4.8.2-2]
)

// ValidateName reports why s cannot be a Topic Name, or nil.
func ValidateName(s string) error {
	if strings.ContainsAny(s, "+#") {
		return ErrWildcard
	}
	return validateText(s)
}

// ValidateFilter reports why s cannot be a Topic Filter, or nil. One that begins
// with "$share/" has to be a valid shared subscription.
func ValidateFilter(s string) error {
	if err := validateText(s); err != nil {
		return err
	}
	_, inner, _, err := ParseShared(s)
	if err != nil {
		return err
	}
	return validateWildcards(inner)
}

func validateText(s string) error {
	switch {
	case s == "":
		return ErrEmpty
	case len(s) > MaxBytes:
		return ErrTooLong
	case strings.Count(s, "/") >= MaxLevels:
		return ErrLevels
	case strings.IndexByte(s, 0) >= 0 || !utf8.ValidString(s):
		return ErrEncoding
	}
	return nil
}

func validateWildcards(s string) error {
	for i := 0; i < len(s); i++ {
		if s[i] != '+' && s[i] != '#' {
			continue
		}
		whole := (i == 0 || s[i-1] == '/') && (i+1 == len(s) || s[i+1] == '/')
		switch {
		case s[i] == '+' && !whole:
			return ErrPlus
		case s[i] == '#' && (!whole || i+1 < len(s)):
			return ErrHash
		}
	}
	return nil
}

// ParseShared takes a shared subscription "$share/{share}/{inner}" apart. Any
// other filter comes back as inner, with shared false; one that begins with
// "$share/" but has no valid share name, or no filter behind it, is ErrShare
// ([MQTT-4.8.2-1], [MQTT-4.8.2-2]), and so is "$share" alone. The syntax of inner
// is not checked.
func ParseShared(filter string) (share, inner string, shared bool, err error) {
	rest, ok := strings.CutPrefix(filter, sharePrefix)
	if !ok {
		if filter == sharePrefix[:len(sharePrefix)-1] {
			return "", "", false, ErrShare
		}
		return "", filter, false, nil
	}
	share, inner, ok = strings.Cut(rest, "/")
	if !ok || share == "" || inner == "" || strings.ContainsAny(share, "+#") {
		return "", "", false, ErrShare
	}
	return share, inner, true, nil
}

// Match reports whether the Topic Name matches the Topic Filter (section 4.7).
// Both have to be valid; filter is a plain one, what ParseShared calls inner.
func Match(filter, name string) bool {
	if name != "" && name[0] == '$' && filter != "" && (filter[0] == '+' || filter[0] == '#') {
		return false // [MQTT-4.7.2-1]
	}
	for {
		f, filterRest, moreFilter := strings.Cut(filter, "/")
		if f == "#" && !moreFilter {
			return true
		}
		n, nameRest, moreName := strings.Cut(name, "/")
		if f != "+" && f != n {
			return false
		}
		if !moreName {
			return !moreFilter || filterRest == "#" // "#" matches the parent level too
		}
		if !moreFilter {
			return false
		}
		filter, name = filterRest, nameRest
	}
}

// HasWildcard reports whether a valid filter holds "+" or "#".
func HasWildcard(filter string) bool { return strings.ContainsAny(filter, "+#") }
