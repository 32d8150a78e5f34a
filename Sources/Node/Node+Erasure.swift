import Base
import EventLog
import Foundation
import Privacy
import RecordFormat

extension Node {
    /// Every key that was ever destroyed, so that an old copy of the key store brings none of them back.
    static let erasures = "headrace.erasures"

    /// Opens the key store that belongs to a data directory. The directory remembers where it is and which one: another
    /// one, or an empty one made in its place, would let an erasure miss the keys that matter.
    static func openKeys(_ configuration: NodeConfiguration) throws -> KeyStore {
        let files = FileManager.default
        let remembered = files.contents(atPath: configuration.keysFile).flatMap { try? JSON(parsing: [UInt8]($0)) }
        let usual = URL(filePath: configuration.dataDirectory + "/keys").path
        let known = remembered?["directory"]?.string
        let wanted = configuration.keys.map { URL(filePath: $0).path } ?? known ?? usual
        if let known, known != wanted {
            throw NodeError(
                "other-keys",
                "the keys of '\(configuration.dataDirectory)' are in '\(known)', not in '\(wanted)'; move them there and change \(configuration.keysFile)"
            )
        }
        if remembered != nil, !KeyStore.isThere(DiskVolume(wanted)) {
            throw NodeError(
                "keys-missing",
                "the keys of '\(configuration.dataDirectory)' were in '\(wanted)', and there are none; mount or restore them. To give up everything sealed under them, remove \(configuration.keysFile)",
                fault: .world)
        }
        do {
            try files.createDirectory(
                atPath: wanted, withIntermediateDirectories: true, attributes: [.posixPermissions: 0o700])
            let store = try KeyStore(DiskVolume(wanted))
            if let identity = remembered?["store"]?.string, identity != store.identity {
                throw NodeError(
                    "other-keys",
                    "the keys in '\(wanted)' are of another store (\(store.identity)) than those of '\(configuration.dataDirectory)' (\(identity)); put its own back"
                )
            }
            if remembered == nil {
                let text = JSON.object(["directory": .string(wanted), "store": .string(store.identity)]).canonical
                try Data(text).write(to: URL(filePath: configuration.keysFile), options: .atomic)
            }
            return store
        } catch let error as EventLogError where error.code == "locked" {
            throw NodeError("locked", "another node uses the keys in '\(wanted)'; each node has keys of its own")
        }
    }

    /// Destroys again what the log says was destroyed: a crash may have come in between, or an old copy of the store.
    func repeatErasures() throws {
        let partition = TopicPartition(Node.erasures, 0)
        try log.forEachEvent(partition) { event in
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
