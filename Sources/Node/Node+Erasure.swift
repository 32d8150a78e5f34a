import Base
import EventLog
import Foundation
import Privacy
import RecordFormat

extension Node {
    /// Every key that was ever destroyed, so that an old copy of the key store brings none of them back, and which store
    /// that is (`keys.opened`).
    static let erasures = "headrace.erasures"

    /// Has the log know the key store from before its first key.
    func noteKeys() throws {
        guard keys.slots > 0 || gateway.hasPersonalTopics else { return }
        try KeyChoice.note(keys, in: log, at: Instant.wallClock())
    }

    /// Destroys again what the log says was destroyed: a crash may have come in between, or an old copy of the store.
    func repeatErasures() throws {
        let partition = TopicPartition(Node.erasures, 0)
        try log.forEachEvent(partition, passesDoubt: true) { event in
            let data = event.data.flatMap { try? JSON(parsing: $0) }
            if let id = data?["key"]?.string.flatMap({ KeyID($0) }) {
                try keys.destroy(id, tag: data?["tag"]?.string.flatMap { Digest(hex: $0) }, at: event.time)
            }
            return true
        }
    }

    /// Makes everything sealed for a person unreadable for good. Logged first: what the log says is done again at the next
    /// start if this ends half-way. The log itself does not change, so its chain holds and every replay gives what it
    /// gave.
    package func erase(_ subject: String) throws -> JSON {
        try applying.withLock { _ in
            guard let key = try keys.find(subject) else {
                throw NodeError(
                    "unknown-subject",
                    "no key is kept for that subject: nothing personal was ever published for it, or it was erased before"
                        + (kafka == nil
                            ? ""
                            : ", or another node sealed it: on Kafka each node has keys of its own, and only the one that published for a person can erase it")
                )
            }
            let now = Instant.wallClock()
            let event = NewEvent(
                id: "erased:\(key)", source: "headrace:/node", type: "subject.erased", time: now,
                data: JSON.object([
                    "key": .string("\(key)"), "tag": .string(keys.fingerprint([UInt8](subject.utf8)).hex),
                ]).canonical)
            let receipt = try log.append(LogAppend(principal: "node", events: [(Node.erasures, 0, event)]))
            do {
                try keys.destroy(key, at: now)
            } catch {
                throw NodeError(
                    "erasure-unfinished",
                    "the erasure is logged, but the key could not be overwritten; the next start does it again",
                    cause: error, fault: .world)
            }
            return .object([
                "key": .string("\(key)"), "erased": .string(now.description),
                "position": .string(receipt.events.first?.position.description ?? ""),
            ])
        }
    }
}
