import Base
import EventLog
import Foundation
import KafkaLog
import RecordFormat
import Testing

/// How a client comes to a broker behind TLS, and what becomes of it.
struct SecurityCase: Sendable, CustomStringConvertible {
    let description: String
    /// What the door asks for.
    var password: String?
    var asksForCertificate = false
    /// Lines of the settings file; `@name` stands for the path of a file.
    let settings: [String]
    /// A piece of the message with which it is refused; nil where it is let in.
    var refusal: String?
}

private let tls = ["security.protocol=ssl", "ssl.ca.location=@ca.pem"]
private let sasl = ["security.protocol=sasl_ssl", "ssl.ca.location=@ca.pem", "sasl.mechanism=PLAIN"]
private let own = ["ssl.certificate.location=@client.pem", "ssl.key.location=@client.key"]
private let right = "correct-horse-9"
private let wrong = "battery-staple-7"

extension HeavyTests {
    /// Real handshakes: what goes through to librdkafka is what it is meant to be, refusals are told at once with their
    /// reason, and no secret is in them.
    @Suite(.enabled(if: KafkaBroker.executable != nil, "needs the PyPI package noida-db in .cache/venv"), .serialized)
    struct KafkaSecurityTests {
        @Test(arguments: [
            SecurityCase(description: "TLS", settings: tls),
            SecurityCase(
                description: "an authority that is not ours",
                settings: ["security.protocol=ssl", "ssl.ca.location=@other-ca.pem"],
                refusal: "certificate verify failed"),
            SecurityCase(
                description: "a password", password: right,
                settings: sasl + ["sasl.username=node", "sasl.password=\(right)"]),
            SecurityCase(
                description: "a wrong password", password: right,
                settings: sasl + ["sasl.username=node", "sasl.password=\(wrong)"], refusal: "uthentication"),
            SecurityCase(description: "a certificate of its own", asksForCertificate: true, settings: tls + own),
            SecurityCase(
                description: "no certificate where one is asked for", asksForCertificate: true, settings: tls,
                refusal: "alert certificate required"),
            SecurityCase(
                description: "a certificate of a stranger", asksForCertificate: true,
                settings: tls + ["ssl.certificate.location=@other.pem", "ssl.key.location=@other.key"],
                refusal: "alert unknown ca"),
        ])
        func handshakesAreLibrdkafkas(_ given: SecurityCase) throws {
            let broker = try KafkaBroker()
            let door = try TLSDoor()
            let port = try door.open(
                to: broker.address, password: given.password, asksForCertificate: given.asksForCertificate)
            let file = door.file("kafka.properties")
            let lines = given.settings.map { line in
                line.split(separator: "@", maxSplits: 1).count == 2
                    ? line.replacingOccurrences(of: "@", with: door.file("")) : line
            }
            try Data(lines.joined(separator: "\n").utf8).write(to: URL(filePath: file))
            var configuration = KafkaConfiguration(bootstrap: "127.0.0.1:\(port)")
            configuration.patience = 20
            let said = Monitor<[String]>([])
            configuration.announce = { text in said.withLock { $0.append(text) } }
            try configuration.read(file: file)
            let begun = Date()
            do {
                let log = try KafkaLog.open(configuration)
                defer { log.close() }
                #expect(given.refusal == nil)
                try log.declare(TopicLayout(name: "t", partitions: 1))
                let event = NewEvent(
                    id: "1", source: "s", type: "t", time: Instant(milliseconds: 5), data: [UInt8]("{}".utf8))
                _ = try log.append(LogAppend(principal: "p", events: [("t", 0, event)]))
                var ids: [String] = []
                try log.forEachEvent(TopicPartition("t", 0)) { event in
                    ids.append(event.id)
                    return true
                }
                #expect(ids == ["1"])
            } catch let error as EventLogError {
                said.withLock { $0.append("\(error)") }
                #expect(error.code == "not-authorized" && !error.retriable, "\(error)")
                #expect(Date().timeIntervalSince(begun) < 10)
                let reason = try #require(given.refusal, "\(error)")
                #expect(error.message.contains(reason), "\(error)")
            }
            for text in said.withLock({ $0 }) { #expect(!text.contains(right) && !text.contains(wrong), "\(text)") }
        }
    }
}
