package packet

import "quorate/protocol/wire"

// The property identifiers (MQTT 5.0 table 2-4).
const (
	propPayloadFormat         = 0x01
	propMessageExpiry         = 0x02
	propContentType           = 0x03
	propResponseTopic         = 0x08
	propCorrelationData       = 0x09
	propSubscriptionID        = 0x0B
	propSessionExpiry         = 0x11
	propAssignedClientID      = 0x12
	propServerKeepAlive       = 0x13
	propAuthMethod            = 0x15
	propAuthData              = 0x16
	propRequestProblem        = 0x17
	propWillDelay             = 0x18
	propRequestResponse       = 0x19
	propResponseInformation   = 0x1A
	propServerReference       = 0x1C
	propReasonString          = 0x1F
	propReceiveMaximum        = 0x21
	propTopicAliasMaximum     = 0x22
	propTopicAlias            = 0x23
	propMaximumQoS            = 0x24
	propRetainAvailable       = 0x25
	propUserProperty          = 0x26
	propMaximumPacketSize     = 0x27
	propWildcardAvailable     = 0x28
	propSubscriptionIDsUsable = 0x29
	propSharedAvailable       = 0x2A
)

// Properties are the properties of every packet but PUBLISH and the Will. The
// zero value is "no property", which for each of them has the default of the
// standard: fields whose default is not zero are named for the other value or
// have a Has field. A packet is encoded with those that its type may carry; the
// others are left out.
type Properties struct {
	SessionExpirySeconds       uint32 // 0xFFFFFFFF: never; counts with HasSessionExpiry
	MaximumPacketSize          uint32 // bytes of a whole packet; 0: not given, no limit
	ReceiveMaximum             uint16 // 0: not given, 65,535
	TopicAliasMaximum          uint16
	ServerKeepAlive            uint16 // seconds; counts with HasServerKeepAlive
	MaximumQoS                 byte   // 0 or 1; counts with HasMaximumQoS
	HasSessionExpiry           bool
	HasServerKeepAlive         bool
	HasMaximumQoS              bool
	RequestResponseInformation bool
	NoProblemInformation       bool // Request Problem Information is 0
	RetainUnavailable          bool // Retain Available is 0
	WildcardsUnavailable       bool // Wildcard Subscription Available is 0
	SubscriptionIDsUnavailable bool // Subscription Identifiers Available is 0
	SharedUnavailable          bool // Shared Subscription Available is 0

	AssignedClientID     string
	AuthenticationMethod string // an empty one counts as none
	AuthenticationData   []byte // nil: none
	ReasonString         string
	ResponseInformation  string
	ServerReference      string
	UserProperties       []UserProperty // in order, names may repeat
}

// propertySet is a set of property identifiers: bit n stands for n.
type propertySet uint64

func (s propertySet) has(id byte) bool { return id < 64 && s>>id&1 == 1 }

// Which properties a packet may carry (table 2-4), in one direction or both.
const (
	ackProperties     propertySet = 1<<propReasonString | 1<<propUserProperty
	messageProperties propertySet = 1<<propPayloadFormat | 1<<propMessageExpiry | 1<<propContentType |
		1<<propResponseTopic | 1<<propCorrelationData | 1<<propUserProperty
	publishProperties             = messageProperties | 1<<propSubscriptionID | 1<<propTopicAlias
	willProperties                = messageProperties | 1<<propWillDelay
	connectProperties propertySet = 1<<propSessionExpiry | 1<<propAuthMethod | 1<<propAuthData |
		1<<propRequestProblem | 1<<propRequestResponse | 1<<propReceiveMaximum |
		1<<propTopicAliasMaximum | 1<<propUserProperty | 1<<propMaximumPacketSize
	connackProperties propertySet = 1<<propSessionExpiry | 1<<propAssignedClientID | 1<<propServerKeepAlive |
		1<<propAuthMethod | 1<<propAuthData | 1<<propResponseInformation | 1<<propServerReference |
		1<<propReasonString | 1<<propReceiveMaximum | 1<<propTopicAliasMaximum | 1<<propMaximumQoS |
		1<<propRetainAvailable | 1<<propUserProperty | 1<<propMaximumPacketSize |
		1<<propWildcardAvailable | 1<<propSubscriptionIDsUsable | 1<<propSharedAvailable
	disconnectProperties              = ackProperties | 1<<propSessionExpiry | 1<<propServerReference
	authProperties                    = ackProperties | 1<<propAuthMethod | 1<<propAuthData
	subscribeProperties   propertySet = 1<<propSubscriptionID | 1<<propUserProperty
	unsubscribeProperties propertySet = 1 << propUserProperty
	forwardedProperties               = messageProperties &^ (1 << propMessageExpiry)
	repeatablePublish     propertySet = 1<<propUserProperty | 1<<propSubscriptionID
)

// omit says what is left out when a packet is encoded.
type omit byte

const (
	omitUserProperties omit = 1 << iota
	omitReasonString
)

// append appends the property length and those properties that are in set.
func (p *Properties) append(dst []byte, set propertySet, o omit) []byte {
	if o&omitUserProperties != 0 {
		set &^= 1 << propUserProperty
	}
	if o&omitReasonString != 0 {
		set &^= 1 << propReasonString
	}
	dst, mark := openLength(dst)
	dst = p.appendNumbers(dst, set)
	dst = p.appendFlags(dst, set)
	dst = p.appendStrings(dst, set)
	return closeLength(dst, mark)
}

// any reports whether append would write a property for an acknowledgement or a
// DISCONNECT, which may leave an empty property list out altogether.
func (p *Properties) any(set propertySet, o omit) bool {
	return set.has(propReasonString) && p.ReasonString != "" && o&omitReasonString == 0 ||
		len(p.UserProperties) > 0 && o&omitUserProperties == 0 ||
		set.has(propSessionExpiry) && p.HasSessionExpiry ||
		set.has(propServerReference) && p.ServerReference != "" ||
		set.has(propAuthMethod) && p.AuthenticationMethod != ""
}

func (p *Properties) appendNumbers(dst []byte, set propertySet) []byte {
	if p.HasSessionExpiry && set.has(propSessionExpiry) {
		dst = wire.AppendUint32(append(dst, propSessionExpiry), p.SessionExpirySeconds)
	}
	if p.ReceiveMaximum != 0 && set.has(propReceiveMaximum) {
		dst = wire.AppendUint16(append(dst, propReceiveMaximum), p.ReceiveMaximum)
	}
	if p.MaximumPacketSize != 0 && set.has(propMaximumPacketSize) {
		dst = wire.AppendUint32(append(dst, propMaximumPacketSize), p.MaximumPacketSize)
	}
	if p.TopicAliasMaximum != 0 && set.has(propTopicAliasMaximum) {
		dst = wire.AppendUint16(append(dst, propTopicAliasMaximum), p.TopicAliasMaximum)
	}
	if p.HasServerKeepAlive && set.has(propServerKeepAlive) {
		dst = wire.AppendUint16(append(dst, propServerKeepAlive), p.ServerKeepAlive)
	}
	if p.HasMaximumQoS && set.has(propMaximumQoS) {
		dst = append(dst, propMaximumQoS, p.MaximumQoS)
	}
	return dst
}

func (p *Properties) appendFlags(dst []byte, set propertySet) []byte {
	flag := func(given bool, id, value byte) {
		if given && set.has(id) {
			dst = append(dst, id, value)
		}
	}
	flag(p.RequestResponseInformation, propRequestResponse, 1)
	flag(p.NoProblemInformation, propRequestProblem, 0)
	flag(p.RetainUnavailable, propRetainAvailable, 0)
	flag(p.WildcardsUnavailable, propWildcardAvailable, 0)
	flag(p.SubscriptionIDsUnavailable, propSubscriptionIDsUsable, 0)
	flag(p.SharedUnavailable, propSharedAvailable, 0)
	return dst
}

func (p *Properties) appendStrings(dst []byte, set propertySet) []byte {
	text := func(s string, id byte) {
		if s != "" && set.has(id) {
			dst = wire.AppendBytes16(append(dst, id), s)
		}
	}
	text(p.AssignedClientID, propAssignedClientID)
	text(p.AuthenticationMethod, propAuthMethod)
	if p.AuthenticationData != nil && set.has(propAuthData) {
		dst = wire.AppendBytes16(append(dst, propAuthData), p.AuthenticationData)
	}
	text(p.ReasonString, propReasonString)
	text(p.ResponseInformation, propResponseInformation)
	text(p.ServerReference, propServerReference)
	if set.has(propUserProperty) {
		dst = appendUserProperties(dst, p.UserProperties)
	}
	return dst
}

func appendUserProperties(dst []byte, list []UserProperty) []byte {
	for _, u := range list {
		dst = wire.AppendBytes16(append(dst, propUserProperty), u.Name)
		dst = wire.AppendBytes16(dst, u.Value)
	}
	return dst
}

// openLength leaves room for a one byte length; closeLength puts it in, and makes
// more room where it takes more.
func openLength(dst []byte) (out []byte, mark int) { return append(dst, 0), len(dst) }

func closeLength(dst []byte, mark int) []byte {
	n := len(dst) - mark - 1
	extra := wire.VarIntLen(uint32(n)) - 1
	if n > wire.VarIntMax {
		panic("packet: more than 268435455 bytes in one packet")
	}
	if extra > 0 {
		dst = append(dst, 0, 0, 0)[:len(dst)+extra]
		copy(dst[mark+1+extra:], dst[mark+1:mark+1+n])
	}
	wire.AppendVarInt(dst[:mark], uint32(n))
	return dst
}
