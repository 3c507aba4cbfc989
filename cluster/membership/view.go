package membership

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"quorate/fsm/command"
)

// runFounding handles membership messages for ever, and founds a cluster while there is none.
func (m *Membership) runFounding() {
	tick := time.NewTicker(m.cfg.CheckInterval)
	defer tick.Stop()
	saved := time.Now()
	for {
		select {
		case l := <-m.inbox:
			m.dispatch(l)
			continue
		case <-m.wake:
		case <-tick.C:
		case <-m.ctx.Done():
			return
		}
		m.fillBook()
		m.founding.step()
		m.refreshMeta()
		m.checkName()
		m.checkStuck()
		if now := time.Now(); now.Sub(saved) >= rememberEvery {
			saved = now
			if err := m.founding.remember(); err != nil {
				m.logger.Warn("remembered addresses not saved", "err", err)
			}
		}
	}
}

// stuckAfter is how long a server of a cluster that it has never seen led is given before an operator is told.
const stuckAfter = time.Minute

// checkStuck tells an operator about a cluster that was founded and never had a leader, and about a server that waits to
// be added. A founder is left with such a cluster for ever when it was cut off between its founding and its first hello,
// for so long that the others have found another way.
func (m *Membership) checkStuck() {
	servers, lastIndex := m.cfg.Consensus.Servers()
	_, led := m.cfg.Consensus.Leader()
	id := m.mesh.ClusterID()
	if id == "" || lastIndex > 1 || led {
		m.startedAt = time.Now()
		return
	}
	if time.Since(m.startedAt) < stuckAfter {
		return
	}
	if lastIndex == 0 {
		m.problems.report("stuck", "this server waits to be added to cluster "+id+" by its leader: "+
			"see that a majority of its servers runs and that they reach this one at "+m.mesh.Addr())
		return
	}
	m.problems.report("stuck", fmt.Sprintf("cluster %s was founded with %d servers and never had a leader: start them; "+
		"if they belong to another cluster by now, delete this server's data directory, which holds nothing yet, and start it again",
		id, len(servers)))
}

// rememberEvery bounds how often changed addresses are written.
const rememberEvery = 10 * time.Second

// dispatch handles one message.
func (m *Membership) dispatch(l letter) {
	switch l.Op {
	case opRemove:
		m.serveRemoval(l)
	case opRemoved:
		m.asked.answer(l.Request, l.message)
	default:
		m.founding.handle(l)
		m.refreshMeta()
	}
}

// candidates returns the servers that could found a cluster with this one, itself included, sorted; or why it has to
// wait. What an operator has to put right is reported.
func (m *Membership) candidates() (ids []command.NodeID, waiting string) {
	live, _ := m.table.snapshot()
	ids = []command.NodeID{m.self}
	names := map[string]command.NodeID{m.cfg.Name: m.self}
	others := make(map[int]int) // servers by another --expect
	for _, id := range sortedIDs(live) {
		meta := live[id]
		owner, taken := names[meta.Name]
		switch {
		case meta.ClusterHash != 0 || meta.HasLog:
			waiting = "server " + string(id) + " (" + meta.Name + ") has a cluster, which must add this one"
		case meta.Leaving || meta.Expect == 0:
		case meta.Expect != m.cfg.Expect:
			others[meta.Expect]++
			m.problems.report("expect "+string(id), differentExpect(m.cfg.Expect, meta))
		case taken && owner == m.self && id < m.self:
			waiting = "server " + string(id) + " has this server's name"
		case taken: // the lower id has the name; checkName reports it
		default:
			names[meta.Name] = id
			ids = append(ids, id)
		}
	}
	for expect, n := range others {
		if n >= len(ids) {
			waiting = fmt.Sprintf("%d servers were started with --expect %d, %d with --expect %d", n, expect, len(ids), m.cfg.Expect)
		}
	}
	slices.Sort(ids)
	return ids, waiting
}

func differentExpect(own int, other Meta) string {
	return fmt.Sprintf("server %s (%s at %s) was started with --expect %d, this one with --expect %d: use the same number everywhere",
		other.ServerID, other.Name, other.Addr, other.Expect, own)
}

func sortedIDs(live map[command.NodeID]Meta) []command.NodeID {
	ids := make([]command.NodeID, 0, len(live))
	for id := range live {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, func(a, b command.NodeID) int { return strings.Compare(string(a), string(b)) })
	return ids
}

// clusterInSight reports whether gossip knows a living member of a cluster.
func (m *Membership) clusterInSight() bool {
	live, _ := m.table.snapshot()
	for _, meta := range live {
		if meta.ClusterHash != 0 || meta.HasLog {
			return true
		}
	}
	return false
}
