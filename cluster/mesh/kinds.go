package mesh

// Kind says what a frame carries. Kinds are only ever added; a frame of an unknown kind is counted and dropped, so that
// an older node survives a newer peer.
type Kind = byte

// The kinds in use. Kind 0 is mesh's own liveness probe and its answer.
const (
	KindPropose         Kind = 1
	KindProposeNack     Kind = 2
	KindReadIndex       Kind = 3
	KindReadIndexAnswer Kind = 4
	KindPublish         Kind = 5
	KindPublishOne      Kind = 6
	KindClock           Kind = 7
	KindClockAnswer     Kind = 8
	KindClosed          Kind = 9
	KindPing            Kind = 10
	KindPong            Kind = 11
	KindMember          Kind = 12 // membership request: bootstrap promises, leave, remove
	KindMemberAnswer    Kind = 13
	KindStatus          Kind = 14
	KindStatusAnswer    Kind = 15

	kindProbe Kind = 0
)

// freshKind reports whether a frame of kind may travel between two servers that belong to no cluster yet.
func freshKind(kind Kind) bool {
	return kind == kindProbe || kind == KindMember || kind == KindMemberAnswer
}
