import Base
import EventLog
import Foundation
import GRDB

/// Where a runner's state survives: one SQLite file, one transaction per checkpoint. Keys stand in sorted runs (`StateRun`): a
/// checkpoint writes what changed as a new one, together with those before it that are not much larger.
package final class StateDatabase {
    /// What a fold may keep in memory of its state unless somebody says otherwise, in bytes.
    package static let defaultMemory = 512 << 20
    /// A run is merged with those before it as long as they are at most so many times as large.
    private static let mergeFactor = 2

    /// nil where all is in memory.
    private let queue: DatabaseQueue?
    private let path: String?
    /// Who only compares leaves what is there as it is.
    private let isKept: Bool
    /// False of state that another build stored, where it is only looked at.
    private var isReadable = true
    /// What stores may keep in memory together, in bytes, of what is on the disk too.
    package let memory: Int
    private(set) var reader: StateReader?
    /// What could not be read of the state since it was opened: what was computed since is worth nothing.
    package var failure: StreamsError? { reader?.failure }
    /// Grows with everybody who begins to fold with this state: who came before writes nothing any more.
    private var epoch: Int64 = 0
    /// A chunk of a run fills one page.
    private static let pageBytes = 16_384
    /// What SQLite may keep in memory, and what its journal may keep on the disk when it is empty.
    private static let cacheKilobytes = 16_000
    private static let journalBytes = 64 << 20
    /// Times in a row that the journal could not be brought into the file, after which a checkpoint fails.
    private static let flushAttempts = 10
    private var flushFailures = 0
    private var flushFailure: (any Error)?
    /// By store, the oldest first; used by whoever writes, and read when nobody does.
    private var lists: [String: [StateRun]] = [:]

    /// - Parameters:
    ///   - path: nil keeps everything in memory (a replay's shadow state).
    ///   - isKept: state of another fold is not dropped, and counts as none.
    package init(path: String?, isKept: Bool = false, memory: Int = defaultMemory) throws(StreamsError) {
        self.isKept = isKept
        self.path = path
        self.memory = memory
        guard let path else {
            queue = nil
            return
        }
        do {
            var configuration = Configuration()
            configuration.prepareDatabase { database in
                try database.execute(sql: "PRAGMA page_size = \(Self.pageBytes)")
                try database.execute(sql: "PRAGMA synchronous = NORMAL")
                try database.execute(sql: "PRAGMA cache_size = -\(Self.cacheKilobytes)")
                // By `flush`, so that nobody waits for it who waits for the commit.
                try database.execute(sql: "PRAGMA wal_autocheckpoint = 0")
                try database.execute(sql: "PRAGMA journal_size_limit = \(Self.journalBytes)")
            }
            configuration.journalMode = .wal
            // A runner that went a moment ago may still be closing its connection.
            configuration.busyMode = .timeout(5)
            let queue = try DatabaseQueue(path: path, configuration: configuration)
            self.queue = queue
            isReadable = try queue.write { try Self.prepare($0, isKept: isKept) }
        } catch {
            throw StreamsError("state-open", Self.remedy(path), cause: error, fault: .world)
        }
        reader = try StateReader(path: path)
    }

    static func remedy(_ path: String) -> String {
        "the state in \(path) cannot be used: if the file may not be read or written, mend its permissions or the disk; if it is damaged, delete it (and \(path)-wal), and it is folded again from the log"
    }

    /// Of the tables; state in other ones is folded again from the log.
    private static let layout = 2

    private static func prepare(_ database: Database, isKept: Bool) throws -> Bool {
        let known = try Int.fetchOne(database, sql: "PRAGMA user_version") ?? 0
        let isNew = try !database.tableExists("meta")
        // Whoever only compares has nothing to compare with.
        guard known == layout || isNew || !isKept else { return false }
        if known != layout {
            for table in ["state", "runs", "chunks", "positions", "meta"] {
                try database.execute(sql: "DROP TABLE IF EXISTS \(table)")
            }
            try database.execute(sql: "PRAGMA user_version = \(layout)")
        }
        try database.execute(
            sql: """
                CREATE TABLE IF NOT EXISTS runs(
                    id INTEGER PRIMARY KEY AUTOINCREMENT, store TEXT NOT NULL, entries INTEGER NOT NULL, bytes INTEGER NOT NULL,
                    firstChunk INTEGER NOT NULL, obsolete INTEGER NOT NULL, starts BLOB NOT NULL, filter BLOB NOT NULL, sum INTEGER NOT NULL
                ) STRICT;
                CREATE TABLE IF NOT EXISTS chunks(id INTEGER PRIMARY KEY AUTOINCREMENT, data BLOB NOT NULL) STRICT;
                CREATE TABLE IF NOT EXISTS positions(
                    topic TEXT NOT NULL, partition INTEGER NOT NULL, next INTEGER NOT NULL, source INTEGER NOT NULL,
                    through INTEGER NOT NULL, PRIMARY KEY(topic, partition)
                ) STRICT, WITHOUT ROWID;
                CREATE TABLE IF NOT EXISTS meta(name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
                """)
        return true
    }

    private static let clearing = "DELETE FROM runs; DELETE FROM chunks; DELETE FROM positions; DELETE FROM meta"

    package struct InputPosition: Sendable {
        package let partition: TopicPartition
        package let next: Int64
        package let source: Int
        package let through: Int64
    }

    /// Under this name stands of what the state is.
    static let identity = "identity"
    /// Before the name of a store: how many keys it has.
    static let countMark = "keys/"
    /// Under this name stands where the changelog goes on behind what is stored; nothing where there is no changelog.
    static let changelog = "changelog"
    /// "1" under this name says that a checkpoint of the changelog is in here in part: what is stored is no state.
    static let changelogIsOpen = "changelogIsOpen"
    /// Under this name stands who may write.
    private static let epochMark = "epoch"

    private func stored(_ database: Database) throws -> Int64 {
        let text = try String.fetchOne(
            database, sql: "SELECT value FROM meta WHERE name = ?", arguments: [Self.epochMark])
        return text.flatMap { Int64($0) } ?? 0
    }

    /// Takes the database over for whoever brings a changelog into it.
    /// - Returns: where the changelog goes on behind what is stored; nil where what is stored is of another topology, or of none.
    func claim(identity: Digest?) throws(StreamsError) -> Int64? {
        guard let queue else { return nil }
        do {
            return try queue.write { database in
                func meta(_ name: String) throws -> String? {
                    try String.fetchOne(database, sql: "SELECT value FROM meta WHERE name = ?", arguments: [name])
                }
                epoch = try stored(database) + 1
                try database.execute(
                    sql: "INSERT OR REPLACE INTO meta VALUES(?, ?)", arguments: [Self.epochMark, String(epoch)])
                lists = try StateRun.load(database)
                guard try identity == nil || meta(Self.identity) == identity?.hex else { return nil }
                return try meta(Self.changelog).flatMap { Int64($0) }
            }
        } catch {
            throw StreamsError("state-load", Self.remedy(path ?? ""), cause: error, fault: .world)
        }
    }

    /// How far the last checkpoint came, and what else it says; nil where nothing is stored that can be read.
    package func standing() throws(StreamsError) -> (inputs: [InputPosition], meta: [String: String])? {
        guard let queue, isReadable else { return nil }
        do {
            return try queue.read { database in
                let (inputs, meta) = (try Self.positions(database), try Self.meta(database))
                return inputs.isEmpty || meta[Self.changelogIsOpen] == "1" ? nil : (inputs, meta)
            }
        } catch {
            throw StreamsError("state-load", Self.remedy(path ?? ""), cause: error, fault: .world)
        }
    }

    private static func positions(_ database: Database) throws -> [InputPosition] {
        try Row.fetchAll(database, sql: "SELECT topic, partition, next, source, through FROM positions").map {
            InputPosition(partition: TopicPartition($0[0], $0[1]), next: $0[2], source: $0[3], through: $0[4])
        }
    }

    private static func meta(_ database: Database) throws -> [String: String] {
        var meta: [String: String] = [:]
        for row in try Row.fetchAll(database, sql: "SELECT name, value FROM meta") { meta[row[0]] = row[1] }
        return meta
    }

    /// Forgets everything but who may write.
    func clear() throws(StreamsError) {
        do {
            try queue?.write { database in
                try database.execute(sql: Self.clearing)
                try database.execute(
                    sql: "INSERT OR REPLACE INTO meta VALUES(?, ?)", arguments: [Self.epochMark, String(epoch)])
            }
            lists = [:]
        } catch {
            throw StreamsError("state-load", Self.remedy(path ?? ""), cause: error, fault: .world)
        }
    }

    /// Gives each store what is stored of it, to be read when it is used.
    /// - Parameter identity: of what the state must be; nil takes whatever there is.
    package func load(
        _ stores: [any AnyStateStore], identity: Digest?
    ) throws(StreamsError) -> (inputs: [InputPosition], meta: [String: String]) {
        guard let queue, let reader else { return ([], [:]) }
        do {
            return try isKept ? queue.read(read) : queue.write(claimAndRead)
            // What another fold stored goes, and whoever writes for one is locked out, all in one.
            func claimAndRead(_ database: Database) throws -> (inputs: [InputPosition], meta: [String: String]) {
                epoch = try stored(database) + 1
                if try !serves(database) { try database.execute(sql: Self.clearing) }
                try database.execute(
                    sql: "INSERT OR REPLACE INTO meta VALUES(?, ?)", arguments: [Self.epochMark, String(epoch)])
                return try read(database)
            }
            // Whoever only compares has nothing to compare with where the state is another fold's.
            func serves(_ database: Database) throws -> Bool {
                let meta = try Self.meta(database)
                return meta[Self.changelogIsOpen] != "1" && (identity == nil || meta[Self.identity] == identity?.hex)
            }
            func read(_ database: Database) throws -> (inputs: [InputPosition], meta: [String: String]) {
                guard try isReadable && (!isKept || serves(database)) else {
                    for store in stores { store.attach(StateDisk(reader: reader, runs: []), count: 0) }
                    return ([], [:])
                }
                lists = try StateRun.load(database)
                let names = Set(stores.map(\.name))
                if let name = lists.keys.sorted().first(where: { !names.contains($0) }) {
                    throw StreamsError(
                        "state-unknown", "the state holds a store '\(name)' that no stage has", fault: .headrace)
                }
                let inputs = try Self.positions(database)
                let meta = try Self.meta(database)
                for store in stores {
                    store.attach(
                        StateDisk(reader: reader, runs: lists[store.name] ?? []),
                        count: meta[Self.countMark + store.name].flatMap { Int($0) } ?? 0)
                }
                return (inputs, meta)
            }
        } catch let error as StreamsError {
            throw error
        } catch {
            throw StreamsError(
                "state-load", Self.remedy(path ?? ""), cause: error,
                fault: .world)
        }
    }

    /// State, timers, holds and positions, all or nothing; the runs of every store that changed.
    ///
    /// Runs that were merged are read until the fold has taken the new lists, so they go with the checkpoint after this one.
    package func checkpoint(
        _ deltas: [StateDelta], inputs: [InputPosition], meta: [String: String]
    ) throws(StreamsError) -> [String: [StateRun]] {
        guard let queue else { return [:] }
        do {
            let changed = try queue.write { database in
                guard try stored(database) == epoch else {
                    throw StreamsError(
                        "state-taken", "another fold has begun with this state; this one writes nothing any more",
                        fault: .world)
                }
                let obsolete = try Row.fetchAll(
                    database, sql: "SELECT id, firstChunk, length(starts) / 8 FROM runs WHERE obsolete = 1")
                for row in obsolete {
                    let (first, count): (Int64, Int64) = (row[1], row[2])
                    try database.execute(
                        sql: "DELETE FROM chunks WHERE id >= ? AND id < ?", arguments: [first, first + count])
                    try database.execute(sql: "DELETE FROM runs WHERE id = ?", arguments: [row[0] as Int64])
                }
                var changed: [String: [StateRun]] = [:]
                for delta in deltas where delta.count > 0 { changed[delta.store] = try write(delta, database) }
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
                return changed
            }
            for (store, runs) in changed { lists[store] = runs }
            if let flushFailure, flushFailures >= Self.flushAttempts { throw flushFailure }
            return changed
        } catch let error as StreamsError {
            throw error
        } catch {
            throw StreamsError(
                "checkpoint", "a checkpoint cannot be written to \(path ?? "")", cause: error, fault: .world)
        }
    }

    /// Brings what was committed from the journal to its place in the file, synced. What fails here is tried again after the
    /// next checkpoint: the journal holds it until then.
    func flush() {
        do {
            try queue?.writeWithoutTransaction { _ = try $0.checkpoint(.passive) }
            flushFailures = 0
        } catch {
            flushFailures += 1
            flushFailure = error
        }
    }

    /// The delta as a run, with the runs before it that are not much larger.
    private func write(_ delta: StateDelta, _ database: Database) throws -> [StateRun] {
        var older = lists[delta.store] ?? []
        var merged: [StateRun] = []
        var size = delta.byteCount
        while let last = older.last, last.bytes <= size * Self.mergeFactor {
            merged.insert(last, at: 0)
            older.removeLast()
            size += last.bytes
        }
        let run = try StateMerge.write(delta, over: merged, dropsRemoved: older.isEmpty, database)
        for run in merged {
            try database.execute(sql: "UPDATE runs SET obsolete = 1 WHERE id = ?", arguments: [run.id])
        }
        return older + (run.map { [$0] } ?? [])
    }
}
