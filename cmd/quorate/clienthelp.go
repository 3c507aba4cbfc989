package main

func pubHelp() string {
	return `Usage: quorate pub {-m MESSAGE | -n | -f FILE | -s | -l} -t TOPIC [FLAGS]

Publishes messages, and waits until the broker has acknowledged those of QoS 1 and 2. Flags and exit codes are those of
mosquitto_pub; in addition the exit code is the Reason Code when the broker refuses a message. When the connection is
lost the messages not yet acknowledged are sent again, to another host if -h has several.

Message
  -t, --topic TOPIC          topic to publish to
  -m, --message TEXT         the message
  -n, --null-message         an empty message
  -f, --file FILE            the content of a file
  -s, --stdin-file           all of standard input as one message
  -l, --stdin-line           one message for each line of standard input
  -q, --qos 0|1|2            quality of service (0)
  -r, --retain               retained message
  -M, --max-inflight N       QoS 1 and 2 messages under way at a time (20)
  --repeat N                 send the message N times (1)
  --repeat-delay SECONDS     pause between two messages (0)
` + sharedHelp + `
The exit code is 0 when all was acknowledged, 1 for errors, and the CONNACK code when the broker refused the client.
`
}

func subHelp() string {
	return `Usage: quorate sub -t FILTER [-t FILTER]... [FLAGS]

Subscribes and prints what it gets. Flags, output and exit codes are those of mosquitto_sub. When the connection is lost
it connects again, to another host if -h has several.

Subscription
  -t, --topic FILTER         filter to subscribe to; may be given more than once
  -q, --qos 0|1|2            highest quality of service (0)
  -U, --unsubscribe FILTER   filter to unsubscribe from
  -T, --filter-out FILTER    do not print messages of these topics
  -R                         do not print retained messages
  --retained-only            print retained messages only, and exit at the first other one
  --remove-retained          clear the retained messages that are printed
  -C COUNT                   exit after so many messages
  -E                         exit when the broker has answered the subscriptions
  -W SECONDS                 exit after so much time, with code 27
  --random-filter PERCENT    print only a part of the messages

Output
  -v, --verbose              print the topic before the message
  -N                         no end of line after a message
  -F FORMAT                  print in this format: %t topic, %p payload, %q QoS, %r retained, %l length, %m packet
                             identifier, %x hexadecimal, %j and %J JSON, %I and %U time, %A %C %D %E %F %P %R %S the
                             properties of MQTT 5, @Y and so on as strftime; widths as in %-20t
  --pretty                   indent JSON
` + sharedHelp + `
The exit code is 0 after -C, -E or a signal, 27 after -W, 1 for errors, and the CONNACK code when the broker refused the
client.
`
}

const sharedHelp = `
Connection
  -h, --host HOST[,HOST...]  host, or several of one cluster (localhost); each may have a port of its own: HOST:PORT
  -p, --port PORT            port (1883, with TLS 8883)
  -L, --url URL              mqtt(s)://[user[:password]@]host[:port]/topic
  --unix PATH                Unix socket instead
  -A ADDR                    local address to connect from
  -V, --protocol-version V   mqttv31, mqttv311 or mqttv5; or 31, 311, 5 (311)
  -i, --id ID                Client Identifier
  -I, --id-prefix PREFIX     Client Identifier: this and the process id
  -u, --username NAME        user name
  -P, --pw PASSWORD          password
  -k, --keepalive SECONDS    Keep Alive (60)
  -c, --disable-clean-session  persistent session; needs -i or -I
  -x, --session-expiry-interval SECONDS  with MQTT 5; -1: never
  -D, --property PACKET NAME [KEY] VALUE  with MQTT 5, for example: -D PUBLISH user-property color red
  --will-topic TOPIC, --will-payload TEXT, --will-qos 0|1|2, --will-retain  the Will
  --cafile FILE, --cert FILE, --key FILE, --tls-use-os-certs, --insecure  TLS
  -d, --debug                print every packet
  --quiet                    print no errors
`
