package command

import "quorate/fsm/internal/codec"

// NodeUp opens an incarnation of a node: it is the first command of that incarnation's batch number 1, and ends the
// incarnation before it as NodeDown does. The new incarnation starts without connections and without routes.
type NodeUp struct {
	ID NodeID
	// Name is the node's label for people. It is no identity.
	Name string
	// ClientAddr is where clients reach the node, for Server Reference.
	ClientAddr string
	// Format is the newest log format the node understands.
	Format byte
}

// Kind implements Command.
func (*NodeUp) Kind() Kind { return KindNodeUp }

// Append implements Command.
func (n *NodeUp) Append(dst []byte) []byte {
	dst = appendKind(dst, KindNodeUp)
	dst = codec.AppendString(dst, string(n.ID))
	dst = codec.AppendString(dst, n.Name)
	dst = codec.AppendString(dst, n.ClientAddr)
	return append(dst, n.Format)
}

func (n *NodeUp) decode(c *codec.Cursor) {
	*n = NodeUp{ID: NodeID(c.String()), Name: c.String(), ClientAddr: c.String(), Format: c.Byte()}
}

// NodeDown ends an incarnation of a node: its connections end, their wills are due, its routes go, and its later
// batches are refused. An incarnation that is not the current one is left alone.
type NodeDown struct {
	ID          NodeID
	Incarnation uint64
}

// Kind implements Command.
func (*NodeDown) Kind() Kind { return KindNodeDown }

// Append implements Command.
func (n *NodeDown) Append(dst []byte) []byte {
	dst = appendKind(dst, KindNodeDown)
	dst = codec.AppendString(dst, string(n.ID))
	return codec.AppendUvarint(dst, n.Incarnation)
}

func (n *NodeDown) decode(c *codec.Cursor) {
	*n = NodeDown{ID: NodeID(c.String()), Incarnation: c.Uvarint()}
}

// Routes changes the filters for which the origin node, in the incarnation of the batch, wants live messages.
type Routes struct{ Add, Remove []string }

// Kind implements Command.
func (*Routes) Kind() Kind { return KindRoutes }

// Append implements Command.
func (r *Routes) Append(dst []byte) []byte {
	dst = appendKind(dst, KindRoutes)
	dst = appendStrings(dst, r.Add)
	return appendStrings(dst, r.Remove)
}

func (r *Routes) decode(c *codec.Cursor) {
	*r = Routes{Add: decodeStrings(c), Remove: decodeStrings(c)}
}

// Tick lets the machine do the work that is due at the entry's stamp, at most 1,000 units of it.
type Tick struct{}

// Kind implements Command.
func (*Tick) Kind() Kind { return KindTick }

// Append implements Command.
func (*Tick) Append(dst []byte) []byte { return appendKind(dst, KindTick) }

func (*Tick) decode(*codec.Cursor) {}
