package session

import (
	"testing"

	"pgregory.net/rapid"

	"quorate/protocol/packet"
)

func pop(in *Inbound) (list []Answer) {
	for {
		a, ok := in.Pop()
		if !ok {
			return list
		}
		list = append(list, a)
	}
}

// Reference: [MQTT-4.6.0-2], [MQTT-4.6.0-3].
func TestAnswersLeaveInTheOrderOfTheRequests(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := NewInbound(1000, true)
		var open []Ticket
		next, got := uint16(0), uint16(0)
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			if len(open) == 0 || rapid.Bool().Draw(t, "request") {
				next++
				open = append(open, in.Request(packet.TypeSuback, next, 1))
			} else {
				i := rapid.IntRange(0, len(open)-1).Draw(t, "finished")
				in.Finish(open[i], packet.Success, nil)
				open = append(open[:i], open[i+1:]...)
			}
			for _, a := range pop(in) {
				if got++; a.ID != got {
					t.Fatalf("answer %d left when %d was due", a.ID, got)
				}
			}
			if count, bytes := in.Waiting(); count != int(next-got) || bytes != count {
				t.Fatalf("%d answers with %d bytes wait, want %d", count, bytes, next-got)
			}
		}
	})
}

// Reference: [MQTT-3.3.4-7]; a repeated PUBLISH of QoS 2 is no new one [MQTT-4.3.3-10].
func TestReceiveMaximumCountsUnfinishedExchanges(t *testing.T) {
	in := NewInbound(2, false)
	one, _ := in.Publish(1, 1, 0)
	two, _ := in.Publish(2, 2, 0)
	if !in.Exceeded(1, 3) || in.Exceeded(2, 2) || in.Exceeded(0, 0) {
		t.Fatal("with two unfinished, a third one exceeds, and a repeated one does not")
	}
	in.Finish(one, packet.Success, nil)
	in.Finish(two, packet.Success, nil)
	if len(pop(in)) != 2 || in.Exceeded(1, 3) {
		t.Fatal("PUBACK ends the exchange")
	}
	if !in.Open(2) || in.Publishing() != 1 {
		t.Fatal("PUBREC does not end the exchange")
	}
	rel := in.Request(packet.TypePubcomp, 2, 0)
	in.Finish(rel, packet.Success, nil)
	pop(in)
	if in.Open(2) || in.Publishing() != 0 {
		t.Fatal("PUBCOMP ends the exchange")
	}
}

// Reference: [MQTT-4.3.3-9].
func TestRefusedQoS2IdentifierIsNewAgain(t *testing.T) {
	in := NewInbound(10, false)
	first, again := in.Publish(2, 7, 0)
	repeated, againToo := in.Publish(2, 7, 0)
	if again || !againToo {
		t.Fatal("the second PUBLISH repeats the first")
	}
	in.Finish(repeated, packet.Success, nil)
	in.Finish(first, packet.QuotaExceeded, nil)
	list := pop(in)
	if len(list) != 2 || list[0].Code != packet.QuotaExceeded || !list[1].Code.Failed() {
		t.Fatalf("answers %+v: what was not published is not acknowledged", list)
	}
	if _, again = in.Publish(2, 7, 0); again {
		t.Fatal("the identifier is new after PUBREC with an error")
	}
}

func TestLocalMessagesAreSentInOrderWithinTheWindow(t *testing.T) {
	o := NewOutbound[string](Limits{ReceiveMaximum: 2, LocalMessageMax: 3, LocalBytesMax: 10})
	if id, ok := o.Direct(1); !ok || id != 1 {
		t.Fatal("an open window sends at once")
	}
	for i, value := range []string{"a", "b", "c"} {
		if !o.Enqueue(Message[string]{QoS: 2, Bytes: 3, Value: value}) {
			t.Fatalf("message %d was not taken", i)
		}
	}
	if o.Enqueue(Message[string]{QoS: 1, Bytes: 1}) {
		t.Fatal("a full queue takes no more")
	}
	if s, ok := o.Next(); !ok || s.ID != 2 || s.Msg.Value != "a" {
		t.Fatalf("sent %+v", s)
	}
	if _, ok := o.Next(); ok {
		t.Fatal("the window is full")
	}
	if o.Pubrec(2, false) != Advanced || o.Puback(1) != Finished || o.Puback(1) != Unknown {
		t.Fatal("acknowledgements")
	}
	if s, ok := o.Next(); !ok || !s.Pubrel || s.ID != 2 {
		t.Fatalf("sent %+v, want PUBREL", s)
	}
	if s, ok := o.Next(); !ok || s.ID != 3 || s.Msg.Value != "b" {
		t.Fatalf("sent %+v", s)
	}
	if o.Pubcomp(2) != Finished || o.Unfinished() != 1 {
		t.Fatal("PUBCOMP ends the exchange")
	}
}
