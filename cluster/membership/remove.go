package membership

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"quorate/fsm/command"
)

var (
	// ErrNoLeader says that no leader is known: try again later.
	ErrNoLeader = errors.New("no leader is known")
	// ErrNotMember says that a server is not in the configuration.
	ErrNotMember = errors.New("no such server in the cluster")
	// ErrQuorum says that a removal would leave the cluster without a majority that answers.
	ErrQuorum = errors.New("the remaining servers that answer would be no majority: bring servers back first")
)

// removal is a server to take out, asked for by an operator.
type removal struct {
	id     command.NodeID
	result chan error // cap 1
}

// Remove takes a server out of the cluster for good, named by its ServerID or, if only one server has it, its name. It
// may be called on any node and returns when the change is committed. The server's data directory must be deleted before
// it can come back, as a new server. Errors: ErrNotMember, ErrQuorum, ErrNoLeader, or the one of ctx, after which the
// outcome is unknown.
func (m *Membership) Remove(ctx context.Context, idOrName string) error {
	id, err := m.lookUp(idOrName)
	if err != nil {
		return err
	}
	if m.cfg.Consensus.IsLeader() {
		return m.removeHere(ctx, id)
	}
	leader, ok := m.cfg.Consensus.Leader()
	if !ok {
		return ErrNoLeader
	}
	request, answer := m.asked.open()
	defer m.asked.close(request)
	if !m.send(leader, message{Op: opRemove, Request: request, Target: id}) {
		return fmt.Errorf("leader %s cannot be reached: %w", leader, ErrNoLeader)
	}
	select {
	case a := <-answer:
		if !a.OK {
			return errors.New(a.Reason)
		}
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-m.ctx.Done():
		return net.ErrClosed
	}
}

// Leave takes this server out of the cluster for good. It is not for a restart.
func (m *Membership) Leave(ctx context.Context) error {
	m.once.leave.Do(func() { close(m.leaving) })
	m.refreshMeta()
	return m.Remove(ctx, string(m.self))
}

// lookUp finds the configured server that is meant.
func (m *Membership) lookUp(idOrName string) (command.NodeID, error) {
	servers, _ := m.cfg.Consensus.Servers()
	if inConfig(servers, command.NodeID(idOrName)) {
		return command.NodeID(idOrName), nil
	}
	_, known := m.table.snapshot()
	var found []command.NodeID
	for _, s := range servers {
		id := command.NodeID(s.ID)
		if name := m.nameOf(id, known); name == idOrName || id == m.self && m.cfg.Name == idOrName {
			found = append(found, id)
		}
	}
	switch len(found) {
	case 0:
		return "", fmt.Errorf("%q: %w", idOrName, ErrNotMember)
	case 1:
		return found[0], nil
	}
	return "", fmt.Errorf("several servers are called %q, name one by its server id: %v", idOrName, found)
}

// removeHere has the reconciling goroutine of this leader remove id: changes come one at a time.
func (m *Membership) removeHere(ctx context.Context, id command.NodeID) error {
	r := removal{id: id, result: make(chan error, 1)}
	select {
	case m.removals <- r:
	case <-ctx.Done():
		return ctx.Err()
	case <-m.ctx.Done():
		return net.ErrClosed
	}
	select {
	case err := <-r.result:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// removeNow removes a server if the rest can go on.
func (m *Membership) removeNow(r removal) error {
	servers, _ := m.cfg.Consensus.Servers()
	switch {
	case !m.cfg.Consensus.IsLeader():
		return ErrNoLeader
	case !inConfig(servers, r.id):
		return fmt.Errorf("%s: %w", r.id, ErrNotMember)
	case isVoter(servers, r.id) && !m.quorumWithout(servers, r.id):
		return fmt.Errorf("remove %s: %w", r.id, ErrQuorum)
	}
	m.logger.Info("changing the cluster", "change", string(remove), "peer", r.id, "because", "asked by an operator")
	return m.apply(action{change: remove, id: r.id})
}

// quorumWithout reports whether the voters that answer are a majority of the voters that remain without id.
func (m *Membership) quorumWithout(servers []raft.Server, id command.NodeID) bool {
	remain, reachable := 0, 0
	for _, s := range servers {
		other := command.NodeID(s.ID)
		if s.Suffrage != raft.Voter || other == id {
			continue
		}
		remain++
		_, silent, ok := m.cfg.Consensus.Progress(other)
		if other == m.self || ok && silent < m.cfg.SilentAfter {
			reachable++
		}
	}
	return reachable >= remain/2+1
}

// removalsMax bounds removals served for other nodes at a time; more are refused.
const removalsMax = 16

// serveRemoval does what another node asked this leader.
func (m *Membership) serveRemoval(l letter) {
	select {
	case m.serving <- struct{}{}:
	default:
		m.send(l.from, message{Op: opRemoved, Request: l.Request, Reason: "too many removals under way"})
		return
	}
	m.wg.Go(func() {
		defer func() { <-m.serving }()
		ctx, cancel := context.WithTimeout(m.ctx, m.cfg.ChangeTimeout)
		defer cancel()
		answer := message{Op: opRemoved, Request: l.Request, OK: true}
		if err := m.removeHere(ctx, l.Target); err != nil {
			answer.OK, answer.Reason = false, err.Error()
		}
		m.send(l.from, answer)
	})
}

// pendingRemovals are removals asked of the leader, by request number.
type pendingRemovals struct {
	mu      sync.Mutex
	last    uint64
	waiting map[uint64]chan message
}

func newPendingRemovals() *pendingRemovals {
	return &pendingRemovals{waiting: make(map[uint64]chan message)}
}

func (p *pendingRemovals) open() (uint64, <-chan message) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.last++
	ch := make(chan message, 1)
	p.waiting[p.last] = ch
	return p.last, ch
}

func (p *pendingRemovals) close(request uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.waiting, request)
}

func (p *pendingRemovals) answer(request uint64, msg message) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if ch := p.waiting[request]; ch != nil {
		select {
		case ch <- msg:
		default:
		}
	}
}

// conflictAfter is how long two live servers must share a name before the later one is told to go: gossip takes a while
// to see that a wiped server's former self is gone.
const conflictAfter = 20 * time.Second

// checkName looks for a live server with this server's name. The later one of the two is refused: the one that is not in
// the configuration, or has no log yet, or, of two of a kind, has the higher id.
func (m *Membership) checkName() {
	live, _ := m.table.snapshot()
	up := m.connected()
	own := m.meta.get()
	servers, _ := m.cfg.Consensus.Servers()
	rank := func(meta Meta) (r int) {
		if inConfig(servers, meta.ServerID) {
			r += 2
		}
		if meta.HasLog {
			r++
		}
		return r
	}
	for _, id := range sortedIDs(live) {
		other := live[id]
		if other.Name != own.Name || other.Addr == own.Addr || !up[id] {
			continue
		}
		later, earlier := own, other
		if rank(own) > rank(other) || rank(own) == rank(other) && m.self < id {
			later, earlier = other, own
		}
		text := nameTaken(own.Name, later.ServerID, later.Addr, earlier.ServerID, earlier.Addr)
		lasted := m.problems.report("name "+string(later.ServerID), text)
		if later.ServerID == m.self && lasted >= conflictAfter && m.cfg.OnRefused != nil {
			m.cfg.OnRefused(errors.New(text))
		}
	}
}
