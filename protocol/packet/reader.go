package packet

import (
	"io"
	"sync"

	"quorate/protocol/wire"
)

// Options are the limits of a Reader.
type Options struct {
	// MaxPacketBytes is the largest whole packet that is taken; a larger one is an
	// *Error with PacketTooLarge as soon as its fixed header was read.
	MaxPacketBytes int
	// MaxUserProperties is how many User Properties one packet may have (a Will and
	// its CONNECT count separately); beyond it is an *Error with QuotaExceeded.
	MaxUserProperties int
	// MaxFilters is how many Topic Filters one SUBSCRIBE or UNSUBSCRIBE may have;
	// beyond it is an *Error with QuotaExceeded.
	MaxFilters int
	// AllowControlCharacters lets strings hold control characters and
	// noncharacters. The standard leaves the choice (section 1.5.4); refusing is
	// the default, as a subscriber that refuses them could be knocked out by a
	// publisher.
	AllowControlCharacters bool
	// AllowLongClientIDs lets a 3.1 client have a Client Identifier of more than 23
	// characters.
	AllowLongClientIDs bool
}

// DefaultOptions returns 1 MiB packets, 100 User Properties, 16,384 filters, no
// control characters and the 23 characters of 3.1.
func DefaultOptions() Options {
	return Options{MaxPacketBytes: 1 << 20, MaxUserProperties: 100, MaxFilters: 16_384}
}

// Sizes of the read buffer, in bytes. A connection that waits holds idleBytes, or
// nothing at all if its source is Lazy and no part of a packet has come. While
// reads come back full it holds bulkBytes out of a pool: with 50 byte packets that
// is one read for 320 of them. A larger packet has a buffer of its own, which
// doubles as bytes arrive; up to keepBytes it stays for the next one while reads
// come back full.
const (
	idleBytes = 512
	bulkBytes = 16 << 10
	keepBytes = 256 << 10
)

// bulkPool lends the bulk buffers. BenchmarkReaderBurst needs 58 ns and 0 B for a
// packet with it, 103 ns and 111 B without.
var bulkPool = sync.Pool{New: func() any { return new([bulkBytes]byte) }}

// loan is what decoding one packet needs and a Reader that waits does not: 352 B
// of an idle connection.
type loan struct {
	pub   Publish // lent to the caller by Next
	acked ack     // likewise
	dec   decoder // here, as it would escape to the heap from the stack: 1 allocation a packet
}

var loanPool = sync.Pool{New: func() any { return new(loan) }}

// Lazy is a source that can wait without a buffer.
type Lazy interface {
	io.Reader
	// ReadLazily reads once, into what Borrow of r returns. It calls Borrow when it
	// expects bytes, and Return if there are none yet, before it waits.
	ReadLazily(r *Reader) (n int, err error)
}

// emptyReadsMax is how often a read may return nothing before the connection is
// given up with io.ErrNoProgress.
const emptyReadsMax = 100

// Reader decodes the Control Packets of one direction of one Network Connection.
// It is for one goroutine.
type Reader struct {
	r       io.Reader
	opt     Options
	side    Side
	version Version // 0: CONNECT has not come
	full    bool    // the last read filled the buffer: more is likely there
	err     *Error  // sticky: nothing is decoded after bad input

	buf        []byte           // bulk[:] or one of its own; nil if there is none
	bulk       *[bulkBytes]byte // on loan from bulkPool, or nil
	lazy       Lazy             // r, if it is one
	start, end int              // Invariant: 0 <= start <= end <= len(buf); buf[start:end] is not yet decoded
	loan       *loan            // from loanPool, or nil while nothing is being decoded
	topic      string           // the last valid Topic Name of a PUBLISH
}

// NewReader returns a Reader with DefaultOptions and that largest packet.
func NewReader(r io.Reader, maxPacketBytes int, side Side) *Reader {
	opt := DefaultOptions()
	opt.MaxPacketBytes = maxPacketBytes
	return NewReaderOptions(r, side, opt)
}

// NewReaderOptions returns a Reader with the given limits. FromClient, the first
// packet has to be a CONNECT, and tells the version. FromServer, the caller says
// with SetVersion what it asked for; until then it is 3.1.1.
func NewReaderOptions(r io.Reader, side Side, opt Options) *Reader {
	rd := &Reader{r: r, opt: opt, side: side}
	rd.lazy, _ = r.(Lazy)
	if side == FromServer {
		rd.version = V311
	}
	return rd
}

// Version returns the version of the connection; 0 before a CONNECT. After an
// error in the CONNECT it is the version in which the server may answer, and 0
// when the server should close without an answer.
func (r *Reader) Version() Version { return r.version }

// SetVersion sets the version, as a client that has sent its CONNECT does. A
// server has no need to call it: after it, a CONNECT is refused as the second.
func (r *Reader) SetVersion(v Version) { r.version = v }

// SetMaxPacketBytes changes the largest packet, as a server does once the client
// has logged in.
func (r *Reader) SetMaxPacketBytes(n int) { r.opt.MaxPacketBytes = n }

// Buffered returns how many bytes were read beyond the last packet. With 0 the
// next Next waits for the connection.
func (r *Reader) Buffered() int { return r.end - r.start }

// Ready reports whether the next Next returns without reading: a whole packet, or
// bad input, is in the buffer.
func (r *Reader) Ready() bool {
	if r.err != nil {
		return true
	}
	total, _, err := r.header()
	return err != nil || (total > 0 && total <= r.Buffered())
}

// Next returns the next packet. A *Publish and the four acknowledgements are used
// again: they, and the bytes that a *Publish points to, are valid until the next
// call. All other packets, and every string, are the caller's.
//
// Errors: an *Error for bad input, which every later call returns again; io.EOF
// when the connection ended between packets, io.ErrUnexpectedEOF inside one; any
// other error of the connection as it is, after which Next may be called again.
func (r *Reader) Next() (Packet, error) {
	if r.err != nil {
		return nil, r.err
	}
	for empty := 0; ; {
		total, headerBytes, bad := r.header()
		if bad != nil {
			r.err = bad
			return nil, bad
		}
		if total > 0 && r.Buffered() >= total {
			return r.decode(total, headerBytes)
		}
		n, err := r.fill(total)
		switch {
		case n > 0:
			empty = 0
		case err == io.EOF && r.Buffered() > 0:
			return nil, io.ErrUnexpectedEOF
		case err != nil:
			return nil, err
		default:
			if empty++; empty == emptyReadsMax {
				return nil, io.ErrNoProgress
			}
		}
	}
}

// header judges the fixed header at the start of the buffer as far as it is
// there: each byte as soon as it came. total is 0 while it is not complete.
func (r *Reader) header() (total, headerBytes int, bad *Error) {
	b := r.buf[r.start:r.end]
	if len(b) == 0 {
		return 0, 0, nil
	}
	if bad := r.first(b[0]); bad != nil {
		return 0, 0, bad
	}
	length, n, err := wire.VarInt(b[1:])
	switch {
	case err == wire.ErrShort:
		return 0, 0, nil
	case err != nil:
		return 0, 0, malformed("%s: remaining length has more than four bytes [MQTT-1.5.5-1]", Type(b[0]>>4))
	case n > 1 && b[n] == 0 && r.version == V5:
		return 0, 0, malformed("%s: remaining length is not in its shortest form [MQTT-1.5.5-1]", Type(b[0]>>4))
	}
	headerBytes = 1 + n
	total = headerBytes + int(length)
	if total > r.opt.MaxPacketBytes {
		return 0, 0, r.tooLarge(b, total, headerBytes)
	}
	return total, headerBytes, nil
}

// first judges the first byte of a packet.
func (r *Reader) first(first byte) *Error {
	t := Type(first >> 4)
	switch {
	case r.side == FromServer || (r.version != 0 && t != TypeConnect):
		return checkFirst(first, r.version, r.side)
	case r.version != 0:
		return protocolError("second CONNECT [MQTT-3.1.0-2]")
	case t != TypeConnect:
		return protocolError("first packet is not a CONNECT but begins with 0x%02X [MQTT-3.1.0-1]", first)
	}
	return nil
}

// tooLarge refuses a packet by its header. Of a CONNECT the version is taken if it
// is in the buffer, so that a 5.0 client can be told.
func (r *Reader) tooLarge(b []byte, total, headerBytes int) *Error {
	if r.version == 0 {
		c := wire.NewCursor(b[headerBytes:])
		r.version, _, _ = protocol(&c)
	}
	return refuse(PacketTooLarge, "%s: %d bytes, limit is %d [MQTT-3.2.2-15]", Type(b[0]>>4), total, r.opt.MaxPacketBytes)
}

// decode takes the packet at the start of the buffer.
func (r *Reader) decode(total, headerBytes int) (Packet, error) {
	first := r.buf[r.start]
	body := r.buf[r.start+headerBytes : r.start+total : r.start+total]
	overlong := headerBytes > 2 && r.buf[r.start+headerBytes-1] == 0
	r.start += total
	if r.version == 0 {
		p, v, err := decodeConnect(body, connectHeader{flags: first & 0x0F, overlong: overlong}, &r.opt)
		r.version = v
		if err != nil {
			r.err = err
			return nil, err
		}
		return p, nil
	}
	if r.loan == nil {
		r.loan = loanPool.Get().(*loan)
	}
	d := &r.loan.dec
	*d = newDecoder(body, &r.opt, r.version, r.side, Type(first>>4))
	p := r.body(d, first)
	if err := d.finish(); err != nil {
		r.err = err
		return nil, err
	}
	return p, nil
}

func (r *Reader) body(d *decoder, first byte) Packet {
	switch d.what {
	case TypePublish:
		p := &r.loan.pub
		d.publish(p, first, r.topic)
		if p.Topic != "" && d.ok() {
			r.topic = p.Topic
		}
		return p
	case TypePuback:
		d.ack(&r.loan.acked)
		return (*Puback)(&r.loan.acked)
	case TypePubrec:
		d.ack(&r.loan.acked)
		return (*Pubrec)(&r.loan.acked)
	case TypePubrel:
		d.ack(&r.loan.acked)
		return (*Pubrel)(&r.loan.acked)
	case TypePubcomp:
		d.ack(&r.loan.acked)
		return (*Pubcomp)(&r.loan.acked)
	case TypeConnack:
		p := &Connack{}
		d.connack(p)
		return p
	case TypeSubscribe:
		return d.subscribe()
	case TypeSuback:
		return d.suback()
	case TypeUnsubscribe:
		return d.unsubscribe()
	case TypeUnsuback:
		return d.unsuback()
	case TypePingreq:
		return &Pingreq{}
	case TypePingresp:
		return &Pingresp{}
	case TypeDisconnect:
		return d.disconnect()
	}
	return d.auth() // checkFirst let nothing else through
}
