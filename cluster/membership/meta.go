package membership

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"quorate/fsm/command"
)

// Meta is what a server gossips about itself. Nothing in it changes often: each change is sent to everybody.
type Meta struct {
	ServerID command.NodeID
	Name     string
	// Addr, ClientAddr and AdminAddr are where peers, MQTT clients and operators reach it.
	Addr, ClientAddr, AdminAddr string
	// Incarnation is its start counter.
	Incarnation uint64
	// ClusterHash is HashOf its cluster id, 0 if it belongs to none.
	ClusterHash uint64
	// Expect is its --expect.
	Expect int
	// HasLog says that it has stored Raft entries; Leaving that it has been asked to leave for good; Voter that it has a
	// vote, as far as it knows.
	HasLog, Leaving, Voter bool
}

// The meta data on the wire:
//
//	1 byte   version (1)
//	1 byte   flags: 1 has log, 2 leaving, 4 voter
//	2 bytes  expect
//	8 bytes  cluster hash
//	8 bytes  incarnation
//	         server id, name, address, client address, admin address: 1 byte length and that many bytes each
//	         (later versions append)
const (
	metaVersion  = 1
	metaBytesMax = 512 // memberlist's limit; it panics beyond

	idBytesMax   = 64
	nameBytesMax = 64
	addrBytesMax = 96

	flagHasLog, flagLeaving, flagVoter byte = 1, 2, 4
)

var errMeta = errors.New("malformed meta data")

// HashOf returns the hash of a cluster id that is gossiped, 0 for none.
func HashOf(clusterID string) uint64 {
	if clusterID == "" {
		return 0
	}
	sum := sha256.Sum256([]byte(clusterID))
	return max(binary.BigEndian.Uint64(sum[:]), 1)
}

// Append appends the encoding of m.
func (m Meta) Append(dst []byte) []byte {
	var flags byte
	for bit, on := range map[byte]bool{flagHasLog: m.HasLog, flagLeaving: m.Leaving, flagVoter: m.Voter} {
		if on {
			flags |= bit
		}
	}
	dst = append(dst, metaVersion, flags)
	dst = binary.BigEndian.AppendUint16(dst, uint16(m.Expect))
	dst = binary.BigEndian.AppendUint64(dst, m.ClusterHash)
	dst = binary.BigEndian.AppendUint64(dst, m.Incarnation)
	dst = appendShort(dst, string(m.ServerID), idBytesMax)
	dst = appendShort(dst, m.Name, nameBytesMax)
	for _, s := range []string{m.Addr, m.ClientAddr, m.AdminAddr} {
		dst = appendShort(dst, s, addrBytesMax)
	}
	return dst
}

// ParseMeta decodes what Append wrote, of this or a later version.
func ParseMeta(b []byte) (Meta, error) {
	if len(b) < 20 || b[0] == 0 {
		return Meta{}, errMeta
	}
	m := Meta{
		HasLog: b[1]&flagHasLog != 0, Leaving: b[1]&flagLeaving != 0, Voter: b[1]&flagVoter != 0,
		Expect:      int(binary.BigEndian.Uint16(b[2:])),
		ClusterHash: binary.BigEndian.Uint64(b[4:]),
		Incarnation: binary.BigEndian.Uint64(b[12:]),
	}
	b = b[20:]
	var fields [5]string
	for i := range fields {
		var err error
		if fields[i], b, err = cutShort(b); err != nil {
			return Meta{}, fmt.Errorf("%w: field %d", errMeta, i)
		}
	}
	m.ServerID, m.Name, m.Addr, m.ClientAddr, m.AdminAddr = command.NodeID(fields[0]), fields[1], fields[2], fields[3], fields[4]
	return m, nil
}

func appendShort(dst []byte, s string, limit int) []byte {
	s = s[:min(len(s), limit)]
	return append(append(dst, byte(len(s))), s...)
}

func cutShort(b []byte) (string, []byte, error) {
	if len(b) < 1 || len(b) < 1+int(b[0]) {
		return "", nil, errMeta
	}
	n := 1 + int(b[0])
	return string(b[1:n]), b[n:], nil
}

// metaCell holds this server's meta data.
type metaCell struct {
	mu    sync.Mutex
	value Meta
}

// set stores v and reports whether it is new.
func (c *metaCell) set(v Meta) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	was := c.value
	c.value = v
	return was != v
}

func (c *metaCell) get() Meta {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.value
}

// refreshMeta recomputes this server's meta data and has it gossiped when it changed.
func (m *Membership) refreshMeta() {
	servers, lastIndex := m.cfg.Consensus.Servers()
	meta := Meta{
		ServerID: m.self, Name: m.cfg.Name,
		Addr: m.mesh.Addr(), ClientAddr: m.cfg.ClientAddr, AdminAddr: m.cfg.AdminAddr,
		Incarnation: m.cfg.Incarnation,
		ClusterHash: HashOf(m.mesh.ClusterID()),
		Expect:      m.cfg.Expect,
		HasLog:      lastIndex > 0,
		Leaving:     m.isLeaving(),
		Voter:       isVoter(servers, m.self),
	}
	if m.meta.set(meta) {
		signal(m.remeta)
	}
}

func (m *Membership) isLeaving() bool {
	select {
	case <-m.leaving:
		return true
	default:
		return false
	}
}

// metaTimeout bounds how long one change of meta data waits to be sent.
const metaTimeout = 2 * time.Second

// runMeta gossips changed meta data.
func (m *Membership) runMeta() {
	for {
		select {
		case <-m.remeta:
		case <-m.ctx.Done():
			return
		}
		if err := m.list.UpdateNode(metaTimeout); err != nil {
			m.logger.Debug("meta data was not sent yet", "err", err)
		}
	}
}
