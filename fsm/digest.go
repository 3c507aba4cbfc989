package fsm

import (
	"encoding/binary"
	"math/bits"
)

// effect names a change of the state in the digest. The numbers are part of the meaning of a digest: nodes of one
// cluster compare them, so they are only ever added.
type effect uint64

const (
	effectNodeUp effect = iota + 1
	effectNodeDown
	effectLifeGone
	effectConfigure
	effectRouteAdd
	effectRouteRemove
	effectSessionNew
	effectSessionEnd
	effectConnect
	effectDisconnect
	effectTimer
	effectIn2Add
	effectIn2Remove
	effectPublish
	effectStore
	effectFree
	effectExpire
	effectAppend
	effectPop
	effectRetain
	effectUnretain
	effectDelay
	effectDelayDone
	effectWill
	effectWillDrop
	effectSpanOpen
	effectSpanClose
	effectSubscriptionGone
	effectFilterNew
	effectFilterGone
	effectCursor
	effectDone
	effectPrivateAdd
	effectPrivateRemove
	effectMark
	effectReceived
	effectOutDone
	effectGroupNew
	effectGroupGone
	effectMemberJoin
	effectMemberLeave
	effectGroupWait
	effectGroupTake
	effectOwed
	effectWork
	effectLost
	effectWillHeld
)

const (
	mixA = 0x9E3779B97F4A7C15
	mixB = 0xD6E8FEB86659FD93
)

// mix folds v into h. For a given v it is a bijection of h: what was different stays different unless a later effect
// makes up for it by chance.
func mix(h, v uint64) uint64 {
	h ^= v * mixA
	h = bits.RotateLeft64(h, 27) * mixB
	return h ^ h>>32
}

// effect folds a change into the digest.
func (st *state) effect(e effect, a, b uint64) {
	st.digest = mix(mix(mix(st.digest, uint64(e)), a), b)
}

// effectString folds a change that concerns a name into the digest.
func (st *state) effectString(e effect, a uint64, s string) {
	st.effect(e, a, uint64(len(s)))
	h := st.digest
	for len(s) >= 8 {
		h = mix(h, uint64(s[0])|uint64(s[1])<<8|uint64(s[2])<<16|uint64(s[3])<<24|
			uint64(s[4])<<32|uint64(s[5])<<40|uint64(s[6])<<48|uint64(s[7])<<56)
		s = s[8:]
	}
	for i := range len(s) {
		h = mix(h, uint64(s[i]))
	}
	st.digest = h
}

// hashBytes is a hash of b in four lanes, for bodies.
func hashBytes(b []byte) uint64 {
	h := [4]uint64{uint64(len(b)), 1, 2, 3}
	for len(b) >= 32 {
		h[0] = mix(h[0], binary.LittleEndian.Uint64(b))
		h[1] = mix(h[1], binary.LittleEndian.Uint64(b[8:]))
		h[2] = mix(h[2], binary.LittleEndian.Uint64(b[16:]))
		h[3] = mix(h[3], binary.LittleEndian.Uint64(b[24:]))
		b = b[32:]
	}
	for len(b) >= 8 {
		h[0] = mix(h[0], binary.LittleEndian.Uint64(b))
		b = b[8:]
	}
	for _, c := range b {
		h[1] = mix(h[1], uint64(c))
	}
	return mix(mix(mix(h[0], h[1]), h[2]), h[3])
}
