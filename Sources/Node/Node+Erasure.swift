import Base
import EventLog
import Foundation
import Privacy
import RecordFormat

extension Node {
    /// Every key that was ever destroyed, so that an old copy of the key store brings none of them back.
    static let erasures = "headrace.erasures"

    /// Opens the key store that belongs to a data directory.
    static func openKeys(_ configuration: NodeConfiguration) throws -> KeyStore {
        let files = FileManager.default
        let remembered = files.contents(atPath: configuration.keysFile).flatMap { try? JSON(parsing: [UInt8]($0)) }?[
            "directory"]?.string
        let usual = URL(filePath: configuration.dataDirectory + "/keys").path
        let wanted = configuration.keys.map { URL(filePath: $0).path } ?? remembered ?? usual
        if let remembered, remembered != wanted {
            throw NodeError(
                "other-keys",
                "the keys of '\(configuration.dataDirectory)' are in '\(remembered)', not in '\(wanted)'; move them there and change \(configuration.keysFile)"
            )
        }
        if remembered == nil, wanted != usual, files.fileExists(atPath: usual) {
            throw NodeError(
                "other-keys",
                "'\(configuration.dataDirectory)' has keys in '\(usual)' already; move that folder to '\(wanted)' first"
            )
        }
        do {
            try files.createDirectory(
                atPath: wanted, withIntermediateDirectories: true, attributes: [.posixPermissions: 0o700])
            let store = try KeyStore(DiskVolume(wanted))
            if remembered == nil, wanted != usual {
                let text = JSON.object(["directory": .string(wanted)]).canonical
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
            let key = event.data.flatMap { try? JSON(parsing: $0) }?["key"]?.string
            if let id = key.flatMap({ KeyID($0) }) { try keys.destroy(id, at: event.time) }
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
                data: JSON.object(["key": .string("\(key)")]).canonical)
            let receipt = try log.append(LogAppend(principal: "node", events: [(Node.erasures, 0, event)]))
            try keys.destroy(key, at: now)
            return .object([
                "key": .string("\(key)"), "erased": .string(now.description),
                "position": .string(receipt.events.first?.position.description ?? ""),
            ])
        }
    }
}
