package check

import (
	"slices"
	"strconv"
)

func connName(conn uint64) string { return strconv.FormatUint(conn, 10) }

// sessionPresent is P7: CONNACK says session present exactly if there is one.
// A session certainly exists from the CONNACK that made it, until something
// that may end it is begun: Clean Start (which makes a new one in its place),
// or a connection whose session ends with it.
func sessionPresent(x *index) *Result {
	r := newResult("session-present", "P7")
	r.count("resumed", 0)
	r.count("created", 0)
	byClient := map[string][]*connection{}
	for _, c := range x.connOrder {
		if c.maybeOwner() {
			byClient[c.Client] = append(byClient[c.Client], c)
		}
	}
	for _, conns := range byClient {
		for _, c := range conns {
			if c.phase == OK {
				present(r, c, conns)
			}
		}
	}
	r.need("resumed", 1)
	return r
}

// present checks one CONNACK against all connections of its client.
func present(r *Result, c *connection, conns []*connection) {
	if c.done.Present {
		r.count("resumed", 1)
	} else {
		r.count("created", 1)
	}
	switch {
	case c.done.Present && c.Clean:
		r.problem("clean-present", "connection %d of %s asked for a clean start and got session present at %v", c.Conn, c.Client, c.end)
	case c.done.Present && !maybeSession(c, conns):
		r.problem("false-present", "connection %d of %s got session present at %v, and there was none", c.Conn, c.Client, c.end)
	case !c.done.Present && !c.Clean && certainSession(c, conns):
		r.problem("false-absent", "connection %d of %s to %s got no session at %v, and there was one", c.Conn, c.Client, c.Node, c.end)
	}
}

// maybeSession reports whether another connection may have made the session
// that c found.
func maybeSession(c *connection, conns []*connection) bool {
	return slices.ContainsFunc(conns, func(o *connection) bool { return o != c && o.At < c.end })
}

// certainSession reports whether a session must exist during all of c.
func certainSession(c *connection, conns []*connection) bool {
	certain := false
	for _, o := range conns {
		switch {
		case o == c || o.At >= c.end:
		case !o.Keep:
			certain = false // ends with its connection, at a time that is not known
			if o.end > c.At {
				return false
			}
		case o.phase == OK && o.end <= c.At:
			certain = true
		}
	}
	return certain
}
