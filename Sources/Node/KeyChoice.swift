import Base
import EventLog
import Foundation
import Privacy
import RecordFormat

/// Which key store belongs to a data directory. The log says which (`keys.opened` in `headrace.erasures`), so that no empty or
/// foreign store takes its place unnoticed, after a restore as well; `keys.json` remembers where it is.
struct KeyChoice {
    /// What the log knows of the store.
    struct Mark: Equatable {
        let store: String
        /// Slots that were in use.
        let slots: Int
    }

    private static let type = "keys.opened"

    let store: KeyStore
    /// Something people should know.
    let notice: String?

    init(_ configuration: NodeConfiguration, log: any EventLog) throws {
        let data = URL(filePath: configuration.dataDirectory).path
        let remembered = KeyChoice.remembered(configuration)
        let mark = try KeyChoice.mark(in: log)
        let known = mark?.store ?? remembered?["store"]?.string
        // Inside the data directory the place is kept relative, so that a directory that is moved or copied has its own.
        let place = remembered?["directory"]?.string.map { $0.hasPrefix("/") ? $0 : data + "/" + $0 }
        let wanted = configuration.keys.map { URL(filePath: $0).path } ?? place ?? data + "/keys"
        if known != nil, !configuration.newKeys, !KeyStore.isThere(DiskVolume(wanted)) {
            throw NodeError(
                "keys-missing",
                "there are no keys in '\(wanted)', and what is sealed in the log of '\(data)' needs its own; restore or mount them, or say where they are with `headrace start --keys DIR`. To give up everything sealed under them: `headrace start --new-keys`",
                fault: .world)
        }
        do {
            try FileManager.default.createDirectory(
                atPath: wanted, withIntermediateDirectories: true, attributes: [.posixPermissions: 0o700])
            try KeyChoice.requirePrivate(wanted)
            store = try KeyStore(DiskVolume(wanted))
            for name in try DiskVolume(wanted).list() {
                try FileManager.default.setAttributes([.posixPermissions: 0o600], ofItemAtPath: wanted + "/" + name)
            }
        } catch let error as EventLogError where error.code == "locked" {
            throw NodeError("locked", "another node uses the keys in '\(wanted)'; each node has keys of its own")
        }
        if let known, known != store.identity, !configuration.newKeys {
            throw NodeError(
                "other-keys",
                "the keys in '\(wanted)' are of another store (\(store.identity)) than those that the log of '\(data)' was sealed with (\(known)); put its own back, or say where they are with --keys"
            )
        }
        let missing = mark?.store == store.identity ? (mark?.slots ?? 0) - store.slots : 0
        let lost = mark?.store == store.identity ? nil : mark
        notice =
            configuration.newKeys && lost != nil
            ? "new keys in '\(wanted)': what was sealed under the \(lost?.slots ?? 0) keys of the store \(lost?.store ?? "") is given up"
            : missing > 0
                ? "the key store in '\(wanted)' is an older copy: at least \(missing) keys that it once had are not in it, and what they sealed cannot be read"
                : nil
        let inside = wanted.hasPrefix(data + "/") ? String(wanted.dropFirst(data.utf8.count + 1)) : wanted
        let text = JSON.object(["directory": .string(inside), "store": .string(store.identity)])
        guard text != remembered else { return }
        try DiskVolume(data).replace("keys.json", with: text.canonical, durable: true)
    }

    /// What was remembered; nil where nothing was, or what is there cannot be read: then the log decides.
    private static func remembered(_ configuration: NodeConfiguration) -> JSON? {
        FileManager.default.contents(atPath: configuration.keysFile).flatMap { try? JSON(parsing: [UInt8]($0)) }
    }

    private static func requirePrivate(_ directory: String) throws {
        let mode = try FileManager.default.attributesOfItem(atPath: directory)[.posixPermissions] as? Int ?? 0
        guard mode & 0o077 == 0 else {
            throw NodeError(
                "open-keys",
                "others may enter '\(directory)' (mode \(String(mode, radix: 8))), and whoever has the keys can read what they seal; chmod 700 it",
                fault: .world)
        }
    }

    /// On a cluster each node has keys of its own, so there the log tells nothing of this one's.
    private static func mark(in log: any EventLog) throws -> Mark? {
        guard log is EmbeddedLog else { return nil }
        // Asked before the platform's topics are declared; as Topics/ has it.
        if log.partitions(of: Node.erasures) == 0 { try log.declare(TopicLayout(name: Node.erasures, partitions: 1)) }
        var found: Mark?
        try log.forEachEvent(TopicPartition(Node.erasures, 0), passesDoubt: true) { event in
            guard event.type == KeyChoice.type, let data = event.data.flatMap({ try? JSON(parsing: $0) }),
                let store = data["store"]?.string
            else { return true }
            found = Mark(store: store, slots: Int(data["slots"]?.int ?? 0))
            return true
        }
        return found
    }

    /// Logs which store it is and how much is in it, where the log does not know it yet.
    static func note(_ store: KeyStore, in log: any EventLog, at now: Instant) throws {
        let mark = Mark(store: store.identity, slots: store.slots)
        guard log is EmbeddedLog else { return }
        // An older copy stays known as one: the mark does not go back.
        if let known = try KeyChoice.mark(in: log), known.store == mark.store, known.slots >= mark.slots { return }
        let event = NewEvent(
            id: "keys:\(mark.store):\(mark.slots)", source: "headrace:/node", type: type, time: now,
            data: JSON.object(["store": .string(mark.store), "slots": .int(Int64(mark.slots))]).canonical)
        _ = try log.append(LogAppend(principal: "node", events: [(Node.erasures, 0, event)]))
    }
}
