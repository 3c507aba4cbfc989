package packet

import "strconv"

// ReasonCode is a Reason Code of MQTT 5.0 (table 2-6), which this package uses
// for every version. Codes of 0x80 and more are failures.
type ReasonCode byte

// The Reason Codes. Success, NormalDisconnection and GrantedQoS0 are the same
// value in different packets.
const (
	Success                             ReasonCode = 0x00
	NormalDisconnection                 ReasonCode = 0x00
	GrantedQoS0                         ReasonCode = 0x00
	GrantedQoS1                         ReasonCode = 0x01
	GrantedQoS2                         ReasonCode = 0x02
	DisconnectWithWill                  ReasonCode = 0x04
	NoMatchingSubscribers               ReasonCode = 0x10
	NoSubscriptionExisted               ReasonCode = 0x11
	ContinueAuthentication              ReasonCode = 0x18
	ReAuthenticate                      ReasonCode = 0x19
	UnspecifiedError                    ReasonCode = 0x80
	MalformedPacket                     ReasonCode = 0x81
	ProtocolError                       ReasonCode = 0x82
	ImplementationSpecificError         ReasonCode = 0x83
	UnsupportedProtocolVersion          ReasonCode = 0x84
	ClientIdentifierNotValid            ReasonCode = 0x85
	BadUserNameOrPassword               ReasonCode = 0x86
	NotAuthorized                       ReasonCode = 0x87
	ServerUnavailable                   ReasonCode = 0x88
	ServerBusy                          ReasonCode = 0x89
	Banned                              ReasonCode = 0x8A
	ServerShuttingDown                  ReasonCode = 0x8B
	BadAuthenticationMethod             ReasonCode = 0x8C
	KeepAliveTimeout                    ReasonCode = 0x8D
	SessionTakenOver                    ReasonCode = 0x8E
	TopicFilterInvalid                  ReasonCode = 0x8F
	TopicNameInvalid                    ReasonCode = 0x90
	PacketIdentifierInUse               ReasonCode = 0x91
	PacketIdentifierNotFound            ReasonCode = 0x92
	ReceiveMaximumExceeded              ReasonCode = 0x93
	TopicAliasInvalid                   ReasonCode = 0x94
	PacketTooLarge                      ReasonCode = 0x95
	MessageRateTooHigh                  ReasonCode = 0x96
	QuotaExceeded                       ReasonCode = 0x97
	AdministrativeAction                ReasonCode = 0x98
	PayloadFormatInvalid                ReasonCode = 0x99
	RetainNotSupported                  ReasonCode = 0x9A
	QoSNotSupported                     ReasonCode = 0x9B
	UseAnotherServer                    ReasonCode = 0x9C
	ServerMoved                         ReasonCode = 0x9D
	SharedSubscriptionsNotSupported     ReasonCode = 0x9E
	ConnectionRateExceeded              ReasonCode = 0x9F
	MaximumConnectTime                  ReasonCode = 0xA0
	SubscriptionIdentifiersNotSupported ReasonCode = 0xA1
	WildcardSubscriptionsNotSupported   ReasonCode = 0xA2
)

// NoV3Connack is what V3Connack returns for a code that no CONNACK of 3.1 or
// 3.1.1 can express.
const NoV3Connack = 0xFF

// reasonInfo is a row of table 2-6: the name, and a bit for each packet type that
// may carry the code, by sender.
type reasonInfo struct {
	name                   string
	fromClient, fromServer uint16
}

// Failed reports whether c is an error code, 0x80 or above.
func (c ReasonCode) Failed() bool { return c >= UnspecifiedError }

// String returns the name of the standard; for 0x00 it is "Success".
func (c ReasonCode) String() string {
	if info := c.info(); info.name != "" {
		return info.name
	}
	return "Reason Code " + strconv.Itoa(int(c))
}

// ValidFor reports whether the sender on side may put c into a packet of type t.
func (c ReasonCode) ValidFor(t Type, side Side) bool {
	info := c.info()
	if side == FromClient {
		return info.fromClient>>t&1 == 1
	}
	return info.fromServer>>t&1 == 1
}

// V3Connack returns the CONNACK return code of MQTT 3.1 and 3.1.1 for c, or
// NoV3Connack where none fits: then the server closes without a CONNACK
// [MQTT-3.2.2-6 of 3.1.1].
func (c ReasonCode) V3Connack() byte {
	switch c {
	case Success:
		return 0
	case UnsupportedProtocolVersion:
		return 1
	case ClientIdentifierNotValid:
		return 2
	case ServerUnavailable, ServerBusy, ServerShuttingDown, UseAnotherServer, ServerMoved, ConnectionRateExceeded,
		QuotaExceeded, UnspecifiedError, ImplementationSpecificError:
		return 3
	case BadUserNameOrPassword, BadAuthenticationMethod:
		return 4
	case NotAuthorized, Banned:
		return 5
	}
	return NoV3Connack
}

// reasonOfV3Connack is the way back, for return codes 0 to 5.
func reasonOfV3Connack(code byte) ReasonCode {
	return [...]ReasonCode{Success, UnsupportedProtocolVersion, ClientIdentifierNotValid,
		ServerUnavailable, BadUserNameOrPassword, NotAuthorized}[code]
}

// Sets of packet types, as bits.
const (
	inConnack    uint16 = 1 << TypeConnack
	inPuback     uint16 = 1 << TypePuback
	inPubrec     uint16 = 1 << TypePubrec
	inPubrel     uint16 = 1 << TypePubrel
	inPubcomp    uint16 = 1 << TypePubcomp
	inSuback     uint16 = 1 << TypeSuback
	inUnsuback   uint16 = 1 << TypeUnsuback
	inDisconnect uint16 = 1 << TypeDisconnect
	inAuth       uint16 = 1 << TypeAuth
)

func (c ReasonCode) info() reasonInfo {
	if int(c) < len(reasons) {
		return reasons[c]
	}
	return reasonInfo{}
}

// reasons is table 2-6. It is never written.
var reasons = [...]reasonInfo{
	Success:                             {"Success", inPuback | inPubrec | inPubrel | inPubcomp | inDisconnect, inConnack | inPuback | inPubrec | inPubrel | inPubcomp | inUnsuback | inAuth | inDisconnect | inSuback},
	GrantedQoS1:                         {"Granted QoS 1", 0, inSuback},
	GrantedQoS2:                         {"Granted QoS 2", 0, inSuback},
	DisconnectWithWill:                  {"Disconnect with Will Message", inDisconnect, 0},
	NoMatchingSubscribers:               {"No matching subscribers", 0, inPuback | inPubrec},
	NoSubscriptionExisted:               {"No subscription existed", 0, inUnsuback},
	ContinueAuthentication:              {"Continue authentication", inAuth, inAuth},
	ReAuthenticate:                      {"Re-authenticate", inAuth, 0},
	UnspecifiedError:                    {"Unspecified error", inPuback | inPubrec | inDisconnect, inConnack | inPuback | inPubrec | inSuback | inUnsuback | inDisconnect},
	MalformedPacket:                     {"Malformed Packet", inDisconnect, inConnack | inDisconnect},
	ProtocolError:                       {"Protocol Error", inDisconnect, inConnack | inDisconnect},
	ImplementationSpecificError:         {"Implementation specific error", inPuback | inPubrec | inDisconnect, inConnack | inPuback | inPubrec | inSuback | inUnsuback | inDisconnect},
	UnsupportedProtocolVersion:          {"Unsupported Protocol Version", 0, inConnack},
	ClientIdentifierNotValid:            {"Client Identifier not valid", 0, inConnack},
	BadUserNameOrPassword:               {"Bad User Name or Password", 0, inConnack},
	NotAuthorized:                       {"Not authorized", inPuback | inPubrec, inConnack | inPuback | inPubrec | inSuback | inUnsuback | inDisconnect},
	ServerUnavailable:                   {"Server unavailable", 0, inConnack},
	ServerBusy:                          {"Server busy", 0, inConnack | inDisconnect},
	Banned:                              {"Banned", 0, inConnack},
	ServerShuttingDown:                  {"Server shutting down", 0, inDisconnect},
	BadAuthenticationMethod:             {"Bad authentication method", 0, inConnack | inDisconnect},
	KeepAliveTimeout:                    {"Keep Alive timeout", 0, inDisconnect},
	SessionTakenOver:                    {"Session taken over", 0, inDisconnect},
	TopicFilterInvalid:                  {"Topic Filter invalid", 0, inSuback | inUnsuback | inDisconnect},
	TopicNameInvalid:                    {"Topic Name invalid", inPuback | inPubrec | inDisconnect, inConnack | inPuback | inPubrec | inDisconnect},
	PacketIdentifierInUse:               {"Packet Identifier in use", inPuback | inPubrec, inPuback | inPubrec | inSuback | inUnsuback},
	PacketIdentifierNotFound:            {"Packet Identifier not found", inPubrel | inPubcomp, inPubrel | inPubcomp},
	ReceiveMaximumExceeded:              {"Receive Maximum exceeded", inDisconnect, inDisconnect},
	TopicAliasInvalid:                   {"Topic Alias invalid", inDisconnect, inDisconnect},
	PacketTooLarge:                      {"Packet too large", inDisconnect, inConnack | inDisconnect},
	MessageRateTooHigh:                  {"Message rate too high", inDisconnect, inDisconnect},
	QuotaExceeded:                       {"Quota exceeded", inPuback | inPubrec | inDisconnect, inConnack | inPuback | inPubrec | inSuback | inDisconnect},
	AdministrativeAction:                {"Administrative action", inDisconnect, inDisconnect},
	PayloadFormatInvalid:                {"Payload format invalid", inPuback | inPubrec | inDisconnect, inConnack | inPuback | inPubrec | inDisconnect},
	RetainNotSupported:                  {"Retain not supported", 0, inConnack | inDisconnect},
	QoSNotSupported:                     {"QoS not supported", 0, inConnack | inDisconnect},
	UseAnotherServer:                    {"Use another server", 0, inConnack | inDisconnect},
	ServerMoved:                         {"Server moved", 0, inConnack | inDisconnect},
	SharedSubscriptionsNotSupported:     {"Shared Subscriptions not supported", 0, inSuback | inDisconnect},
	ConnectionRateExceeded:              {"Connection rate exceeded", 0, inConnack | inDisconnect},
	MaximumConnectTime:                  {"Maximum connect time", 0, inDisconnect},
	SubscriptionIdentifiersNotSupported: {"Subscription Identifiers not supported", 0, inSuback | inDisconnect},
	WildcardSubscriptionsNotSupported:   {"Wildcard Subscriptions not supported", 0, inSuback | inDisconnect},
}
