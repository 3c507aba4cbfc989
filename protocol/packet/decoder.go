package packet

import "quorate/protocol/wire"

// decoder reads the fields of one packet. Like the Cursor it keeps its first
// failure, so that decoding reads as a list of fields; finish tells.
type decoder struct {
	c       wire.Cursor
	opt     *Options
	version Version
	side    Side
	what    Type
	field   string // what is being read, for the text of an error
	err     *Error
}

func newDecoder(b []byte, opt *Options, v Version, side Side, what Type) decoder {
	return decoder{c: wire.NewCursor(b), opt: opt, version: v, side: side, what: what}
}

// at names the field that is read next.
func (d *decoder) at(field string) {
	if d.c.Err() == nil {
		d.field = field
	}
}

// fail keeps err unless something failed before, and stops the reading.
func (d *decoder) fail(err *Error) {
	if d.ok() {
		err.Text = d.what.String() + ": " + err.Text
		d.err = err
	}
	d.c.Fail(err)
}

// ok reports whether nothing has failed so far.
func (d *decoder) ok() bool { return d.c.Err() == nil }

// finish returns the first failure. Bytes after the last field are one.
func (d *decoder) finish() *Error {
	if d.err != nil {
		return d.err
	}
	if err := d.c.Err(); err != nil {
		return malformed("%s: %s: %v", d.what, d.field, err)
	}
	if n := d.c.Len(); n > 0 {
		return malformed("%s: %d bytes follow the last field", d.what, n)
	}
	return nil
}

// text checks that b is a UTF-8 Encoded String.
func (d *decoder) text(b []byte) []byte {
	if wire.PrintableASCII(b) {
		return b // nearly every string
	}
	if !wire.ValidString(b) {
		d.fail(malformed("%s: not well-formed UTF-8, or U+0000 in it [MQTT-1.5.4-1] [MQTT-1.5.4-2]", d.field))
		return nil
	}
	if !d.opt.AllowControlCharacters && wire.HasControl(b) {
		d.fail(malformed("%s: control character or noncharacter in it (section 1.5.4)", d.field))
		return nil
	}
	return b
}

// string reads a UTF-8 Encoded String.
func (d *decoder) string(field string) string {
	d.at(field)
	return string(d.text(d.c.Bytes16()))
}

// binary reads Binary Data. It aliases the packet and is never nil.
func (d *decoder) binary(field string) []byte {
	d.at(field)
	if b := d.c.Bytes16(); b != nil {
		return b
	}
	return []byte{}
}

// packetID reads a Packet Identifier, which is never 0 ([MQTT-2.2.1-3],
// [MQTT-2.2.1-4]).
func (d *decoder) packetID() uint16 {
	d.at("packet identifier")
	id := d.c.Uint16()
	if id == 0 && d.ok() {
		d.fail(protocolError("packet identifier 0 [MQTT-2.2.1-3]"))
	}
	return id
}

// reason reads a Reason Code and checks that this packet may carry it.
func (d *decoder) reason() ReasonCode {
	d.at("reason code")
	code := ReasonCode(d.c.Uint8())
	if d.ok() && !code.ValidFor(d.what, d.side) {
		d.fail(protocolError("reason code 0x%02X is not one that this packet may carry (table 2-6)", byte(code)))
	}
	return code
}

// topicName checks a Topic Name: at least one character and no wildcard
// [MQTT-3.3.2-2] [MQTT-4.7.3-1].
func (d *decoder) topicName(name []byte, reason ReasonCode) {
	if !d.ok() {
		return
	}
	if len(name) == 0 {
		d.fail(refuse(reason, "%s: no character in it [MQTT-4.7.3-1]", d.field))
		return
	}
	for _, b := range name {
		if b == '+' || b == '#' {
			d.fail(refuse(reason, "%s: wildcard character in it [MQTT-3.3.2-2]", d.field))
			return
		}
	}
}
