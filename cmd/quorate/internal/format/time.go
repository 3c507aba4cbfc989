package format

import (
	"fmt"
	"strconv"
	"time"
)

// layouts are the strftime(3) letters that are a Go layout, in the C locale.
var layouts = map[byte]string{
	'a': "Mon", 'A': "Monday", 'b': "Jan", 'B': "January", 'c': "Mon Jan _2 15:04:05 2006", 'd': "02", 'D': "01/02/06",
	'e': "_2", 'F': "2006-01-02", 'h': "Jan", 'H': "15", 'I': "03", 'j': "002", 'm': "01", 'M': "04", 'p': "PM",
	'r': "03:04:05 PM", 'R': "15:04", 'S': "05", 'T': "15:04:05", 'x': "01/02/06", 'X': "15:04:05", 'y': "06", 'Y': "2006",
	'z': "-0700", 'Z': "MST",
}

// appendTime appends what the strftime(3) letter stands for, and N: nanoseconds. Unknown letters stay as they are.
func appendTime(dst []byte, letter byte, t time.Time) []byte {
	if layout, ok := layouts[letter]; ok {
		return t.AppendFormat(dst, layout)
	}
	year, week := t.ISOWeek()
	switch letter {
	case '@':
		return append(dst, '@')
	case 'N':
		return fmt.Appendf(dst, "%09d", t.Nanosecond())
	case 'n':
		return append(dst, '\n')
	case 't':
		return append(dst, '\t')
	case 's':
		return strconv.AppendInt(dst, t.Unix(), 10)
	case 'C':
		return fmt.Appendf(dst, "%02d", t.Year()/100)
	case 'g':
		return fmt.Appendf(dst, "%02d", year%100)
	case 'G':
		return strconv.AppendInt(dst, int64(year), 10)
	case 'V':
		return fmt.Appendf(dst, "%02d", week)
	case 'u':
		return strconv.AppendInt(dst, int64((t.Weekday()+6)%7+1), 10)
	case 'w':
		return strconv.AppendInt(dst, int64(t.Weekday()), 10)
	case 'U':
		return fmt.Appendf(dst, "%02d", (t.YearDay()+6-int(t.Weekday()))/7)
	case 'W':
		return fmt.Appendf(dst, "%02d", (t.YearDay()+6-int(t.Weekday()+6)%7)/7)
	case 'k':
		return fmt.Appendf(dst, "%2d", t.Hour())
	case 'l':
		return fmt.Appendf(dst, "%2d", (t.Hour()+11)%12+1)
	}
	return append(dst, '%', letter)
}
