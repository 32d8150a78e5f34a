import Base
import EventLog
import Foundation
import GRDB

/// Where a runner's state survives: one SQLite file, one transaction per checkpoint.
package final class StateDatabase: Sendable {
    package let queue: DatabaseQueue
    private let path: String

    /// Who only compares leaves what is there as it is.
    private let isKept: Bool

    /// - Parameters:
    ///   - path: nil keeps everything in memory (a replay's shadow state).
    ///   - isKept: state of another fold is not dropped, and counts as none.
    package init(path: String?, isKept: Bool = false) throws(StreamsError) {
        self.isKept = isKept
        self.path = path ?? ":memory:"
        do {
            var configuration = Configuration()
            configuration.prepareDatabase { database in
                try database.execute(sql: "PRAGMA synchronous = NORMAL")
                try database.execute(sql: "PRAGMA cache_size = -16000")
            }
            configuration.journalMode = .wal
            // A runner that went a moment ago may still be closing its connection.
            configuration.busyMode = .timeout(5)
            queue = try path.map { try DatabaseQueue(path: $0, configuration: configuration) } ?? DatabaseQueue()
            try queue.write { database in
                try database.execute(
                    sql: """
                        CREATE TABLE IF NOT EXISTS state(
                            store TEXT NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL, PRIMARY KEY(store, key)
                        ) STRICT, WITHOUT ROWID;
                        CREATE TABLE IF NOT EXISTS positions(
                            topic TEXT NOT NULL, partition INTEGER NOT NULL, next INTEGER NOT NULL, source INTEGER NOT NULL,
                            through INTEGER NOT NULL, PRIMARY KEY(topic, partition)
                        ) STRICT, WITHOUT ROWID;
                        CREATE TABLE IF NOT EXISTS meta(name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
                        """)
            }
        } catch {
            throw StreamsError("state-open", "the state in \(self.path) cannot be opened", cause: error, fault: .world)
        }
    }

    package struct InputPosition: Sendable {
        package let partition: TopicPartition
        package let next: Int64
        package let source: Int
        package let through: Int64
    }

    /// Under this name stands of what the state is.
    static let identity = "identity"

    /// Whether the state is that of a fold. What another fold stored goes: everything here can be folded again from the log.
    private func isOf(_ identity: Digest) throws -> Bool {
        let known = try queue.read { database in
            try String.fetchOne(database, sql: "SELECT value FROM meta WHERE name = ?", arguments: [Self.identity])
        }
        guard known != identity.hex else { return true }
        guard !isKept else { return false }
        try queue.write { database in
            try database.execute(sql: "DELETE FROM state; DELETE FROM positions; DELETE FROM meta")
        }
        return false
    }

    /// - Parameter identity: of what the state must be; nil takes whatever there is.
    func load(
        _ stores: [AnyStateStore], identity: Digest?
    ) throws(StreamsError) -> (inputs: [InputPosition], meta: [String: String]) {
        let byName = Dictionary(uniqueKeysWithValues: stores.map { ($0.name, $0) })
        do {
            if let identity, try !isOf(identity) { return ([], [:]) }
            return try queue.read { database in
                let rows = try Row.fetchCursor(database, sql: "SELECT store, key, value FROM state")
                while let row = try rows.next() {
                    let name: String = row[0]
                    guard let store = byName[name] else {
                        throw StreamsError(
                            "state-unknown", "the state holds a store '\(name)' that no stage has", fault: .headrace)
                    }
                    let value: Data = row[2]
                    try value.withUnsafeBytes { try store.load(key: row[1], value: $0) }
                }
                let inputs = try Row.fetchAll(
                    database, sql: "SELECT topic, partition, next, source, through FROM positions"
                ).map {
                    InputPosition(partition: TopicPartition($0[0], $0[1]), next: $0[2], source: $0[3], through: $0[4])
                }
                var meta: [String: String] = [:]
                for row in try Row.fetchAll(database, sql: "SELECT name, value FROM meta") { meta[row[0]] = row[1] }
                return (inputs, meta)
            }
        } catch let error as StreamsError {
            throw error
        } catch {
            throw StreamsError(
                "state-load", "the state in \(path) cannot be read; delete the file to rebuild it from the log",
                cause: error,
                fault: .world)
        }
    }

    /// State, timers, holds and positions, all or nothing.
    func checkpoint(
        _ changes: [StateChange], inputs: [InputPosition], meta: [String: String]
    ) throws(StreamsError) {
        // In the order of the table, which is what SQLite writes fastest.
        let changes = changes.sorted {
            $0.store == $1.store ? $0.key.utf8.lexicographicallyPrecedes($1.key.utf8) : $0.store < $1.store
        }
        do {
            try queue.write { database in
                let put = try database.cachedStatement(
                    sql:
                        "INSERT INTO state(store, key, value) VALUES(?, ?, ?) ON CONFLICT DO UPDATE SET value = excluded.value"
                )
                let drop = try database.cachedStatement(sql: "DELETE FROM state WHERE store = ? AND key = ?")
                for change in changes {
                    if let value = change.value {
                        try put.execute(arguments: [change.store, change.key, Data(value)])
                    } else {
                        try drop.execute(arguments: [change.store, change.key])
                    }
                }
                let position = try database.cachedStatement(
                    sql: "INSERT OR REPLACE INTO positions VALUES(?, ?, ?, ?, ?)")
                for input in inputs {
                    try position.execute(arguments: [
                        input.partition.topic, input.partition.partition, input.next, input.source, input.through,
                    ])
                }
                for (name, value) in meta.sorted(by: { $0.key < $1.key }) {
                    try database.execute(sql: "INSERT OR REPLACE INTO meta VALUES(?, ?)", arguments: [name, value])
                }
            }
        } catch {
            throw StreamsError("checkpoint", "a checkpoint cannot be written to \(path)", cause: error, fault: .world)
        }
    }
}
