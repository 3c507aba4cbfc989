package node

import (
	"cmp"
	"context"
	"encoding/binary"
	"encoding/json"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"quorate/cluster/mesh"
	"quorate/fsm/command"
	"quorate/node/admin"
)

// The frames by which nodes ask each other for status:
//
//	request  version (1), 8 bytes number of the request
//	answer   version (1), the same number, an admin.Member as JSON
//
// JSON, because people ask seldom and the fields will grow.
const statusVersion = 1

// asking is what this node has asked others for and not been answered yet.
type asking struct {
	node   *Node
	number atomic.Uint64

	mu      sync.Mutex
	waiting map[uint64]chan<- admin.Member // Invariant: each channel has room for every peer that was asked
}

// init registers the frames.
func (a *asking) init(n *Node) {
	a.node, a.waiting = n, make(map[uint64]chan<- admin.Member)
	n.mesh.Handle(mesh.KindStatus, a.request)
	n.mesh.Handle(mesh.KindStatusAnswer, a.answer)
}

// request answers another node.
func (a *asking) request(from command.NodeID, payload []byte) {
	if len(payload) < 9 || payload[0] != statusVersion {
		return
	}
	reply := append([]byte(nil), payload[:9]...)
	member, err := json.Marshal(a.node.member())
	if err != nil {
		panic("node: status does not encode: " + err.Error())
	}
	// A status that does not get through is asked for again.
	a.node.mesh.Send(from, mesh.KindStatusAnswer, append(reply, member...))
}

// answer takes another node's answer.
func (a *asking) answer(_ command.NodeID, payload []byte) {
	if len(payload) < 9 || payload[0] != statusVersion {
		return
	}
	var m admin.Member
	if json.Unmarshal(payload[9:], &m) != nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if to, ok := a.waiting[binary.BigEndian.Uint64(payload[1:])]; ok {
		select {
		case to <- m:
		default: // a peer that answers twice
		}
	}
}

// askMax bounds the wait for answers: a request or its answer is lost when a connection breaks.
const askMax = time.Second

// ask asks every peer and returns those that answer in time.
func (a *asking) ask(ctx context.Context, peers []mesh.Peer) map[string]admin.Member {
	ctx, cancel := context.WithTimeout(ctx, askMax)
	defer cancel()
	number := a.number.Add(1)
	answers := make(chan admin.Member, len(peers))
	a.mu.Lock()
	a.waiting[number] = answers
	a.mu.Unlock()
	defer func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		delete(a.waiting, number)
	}()
	request := binary.BigEndian.AppendUint64([]byte{statusVersion}, number)
	asked := 0
	for _, p := range peers {
		if a.node.mesh.Send(p.ID, mesh.KindStatus, request) {
			asked++
		}
	}
	got := make(map[string]admin.Member, asked)
	for range asked {
		select {
		case m := <-answers:
			got[m.ID] = m
		case <-ctx.Done():
			return got
		}
	}
	return got
}

// Status is the cluster as this node sees it: itself, those that answer, and those that should be there but do not. It
// implements admin.Node.
func (n *Node) Status(ctx context.Context) admin.Status {
	peers := n.mesh.Peers()
	members := n.asking.ask(ctx, peers)
	own := n.member()
	members[own.ID] = own
	for _, p := range peers {
		if p.Up { // others are told by the configuration, or were taken out of it
			n.addSilent(members, p.ID, p.Name)
		}
	}
	servers, _ := n.consensus.Servers()
	for _, s := range servers {
		n.addSilent(members, command.NodeID(s.ID), "")
	}
	st := admin.Status{Cluster: n.mesh.ClusterID(), Asked: n.cfg.Name}
	leader, _ := n.consensus.Leader()
	for _, m := range members {
		if m.ID == string(leader) {
			st.Leader = m.Name
		}
		st.Nodes = append(st.Nodes, m)
	}
	slices.SortFunc(st.Nodes, func(a, b admin.Member) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID))
	})
	return st
}

// addSilent adds a node that has not answered, from what the log knows of it.
func (n *Node) addSilent(members map[string]admin.Member, id command.NodeID, name string) {
	if _, answered := members[string(id)]; answered {
		return
	}
	info, _ := n.machine.Node(id)
	m := admin.Member{ID: string(id), Name: cmp.Or(info.Name, name, string(id)), State: admin.StateUnreachable,
		Address: info.ClientAddr, Reason: "does not answer " + n.cfg.Name}
	m.Voter = n.votes(id)
	members[m.ID] = m
}

func (n *Node) votes(id command.NodeID) bool {
	servers, _ := n.consensus.Servers()
	return slices.ContainsFunc(servers, func(s raft.Server) bool {
		return s.ID == raft.ServerID(id) && s.Suffrage == raft.Voter
	})
}

// member is what this node says of itself.
func (n *Node) member() admin.Member {
	counters, stats := n.broker.Metrics(), n.machine.Stats()
	m := admin.Member{
		Name: n.cfg.Name, ID: string(n.self), State: n.state(), Voter: n.votes(n.self), Applied: n.machine.Applied(),
		Connections: n.broker.Connections(), Sessions: stats.Sessions, Version: n.opt.Version,
	}
	for qos := range counters.Published {
		m.Received += counters.Published[qos].Load()
		m.Sent += counters.Delivered[qos].Load()
	}
	info, _ := n.machine.Node(n.self)
	m.Address = info.ClientAddr
	if err := n.Ready(); err != nil {
		m.Reason = err.Error()
	} else {
		m.Ready = true
	}
	return m
}

func (n *Node) state() string {
	inCluster, voter, _ := n.suffrage()
	_, led := n.consensus.Leader()
	switch {
	case !inCluster:
		return admin.StateJoining
	case n.consensus.IsLeader():
		return admin.StateLeader
	case !led || n.consensus.ContactAge() > n.cfg.LeaderWait:
		return admin.StateSeparated
	case voter:
		return admin.StateFollower
	}
	return admin.StateNonvoter
}
