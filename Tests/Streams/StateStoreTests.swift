import Base
import Foundation
import GRDB
import Streams
import Testing

@Suite struct StateStoreTests {
    private struct Refusal: Error {}

    /// A store with its database, in lives that end without warning.
    private final class Kept {
        private let path: String
        private let placing: (@Sendable (UnsafeRawBufferPointer) -> UInt64)?
        private(set) var database: StateDatabase
        private(set) var store: StateStore<StateBlob>
        private var lives = 0

        init(_ path: String, _ placing: (@Sendable (UnsafeRawBufferPointer) -> UInt64)?) throws {
            self.path = path
            self.placing = placing
            database = try StateDatabase(path: path)
            store = StateStore(name: "s", placing: placing)
            try reopen()
        }

        func reopen() throws {
            database = try StateDatabase(path: path)
            store = StateStore(name: "s", placing: placing)
            _ = try database.load([store], identity: nil)
            // Every other life has its digest read beside it, as folds have.
            lives += 1
            if lives % 2 == 0 { store.prepareDigest() }
        }

        /// What a snapshot took is on the disk, as a checkpoint leaves it.
        func write(_ delta: StateDelta, count: Int) throws {
            let runs = try database.checkpoint([delta], inputs: [], meta: ["keys/s": "\(count)"])
            if let changed = runs["s"] { store.snapshotStored(changed) }
        }

        func checkpoint() throws {
            let delta = store.takeChanges()
            try write(delta, count: store.count)
        }

        func evict(_ room: Int) {
            var (forgotten, evicted) = (room, room)
            store.forget(&forgotten)
            store.evict(&evicted)
        }
    }

    private static func fresh(_ content: [String: [UInt8]]) -> StateStore<StateBlob> {
        let store = StateStore<StateBlob>(name: "s")
        for (key, bytes) in content { store.set(key, StateBlob(bytes)) }
        return store
    }

    /// Random changes, checkpoints taken piece by piece while changes go on, keys let go and read again, digests and ends
    /// without warning against two plain dictionaries: nothing is lost, nothing comes back, and the digest depends on the
    /// content alone. Keys stand by their hash, all in one place, or by their first letter; values are small or fill chunks.
    @Test(arguments: 0..<40) func isADictionaryThatSurvives(seed: Int) throws {
        var random = SeededRandom(seed: UInt64(seed))
        let scratch = try ScratchDirectory()
        let placings: [(@Sendable (UnsafeRawBufferPointer) -> UInt64)?] = [nil, { _ in 7 }, { UInt64($0.last ?? 0) }]
        let kept = try Kept(scratch.path + "/state", placings[seed % 3])
        var content: [String: [UInt8]] = [:]
        var saved: [String: [UInt8]] = [:]
        let keys = [5, 40, 300][seed / 3 % 3]
        let large = [3, 400, 20_000][seed % 3]
        func change() throws {
            let store = kept.store
            let key = "k\(Int.random(in: 0..<keys, using: &random))"
            let byte = UInt8.random(in: 0...255, using: &random)
            switch Int.random(in: 0..<8, using: &random) {
            case 0, 1:
                let bytes = Array(repeating: byte, count: Int.random(in: 0...large, using: &random))
                store.set(key, StateBlob(bytes))
                content[key] = bytes
            case 2, 3:
                store.modify(key, default: StateBlob([])) { $0.bytes.append(byte) }
                content[key, default: []].append(byte)
            case 4:
                // A change that fails half-way is a change.
                try? store.modify(key, default: StateBlob([])) { blob in
                    blob.bytes.append(byte)
                    throw Refusal()
                }
                content[key, default: []].append(byte)
            case 5, 6: #expect(store.remove(key)?.bytes == content.removeValue(forKey: key))
            default: #expect(store.has(key) == (content[key] != nil))
            }
            #expect(store.count == content.count)
            #expect(store[key]?.bytes == content[key] && store.inspect(key) { $0.bytes } == content[key])
        }
        for round in 0..<60 {
            for _ in 0..<Int.random(in: 0..<30, using: &random) { try change() }
            if round % 4 == 0 { kept.evict(Int.random(in: 1..<1000, using: &random)) }
            if Int.random(in: 0..<4, using: &random) == 0 {
                let all = StateStore<StateBlob>(name: "s")
                for (key, bytes) in content { all.set(key, StateBlob(bytes)) }
                #expect(kept.store.digest() == all.digest(), "seed \(seed), round \(round)")
            }
            let expected = content
            kept.store.beginSnapshot()
            let count = kept.store.count
            var delta = StateDelta(store: "s")
            while !kept.store.takeSnapshot(limit: Int.random(in: 1...9, using: &random), into: &delta) {
                if Bool.random(using: &random) { try change() }
            }
            #expect(Set(delta.entries.map(\.key)).count == delta.count, "each key once")
            for _ in 0..<Int.random(in: 0..<4, using: &random) { try change() }
            if Int.random(in: 0..<5, using: &random) > 0 {
                try kept.write(delta, count: count)
                saved = expected
                kept.evict(Int.random(in: 0..<2000, using: &random))
            } else {
                content = saved
                try kept.reopen()
            }
            #expect(kept.store.count == content.count, "seed \(seed), round \(round)")
        }
        try kept.checkpoint()
        try kept.reopen()
        #expect(kept.store.digest() == Self.fresh(content).digest())
        for (key, bytes) in content { #expect(kept.store[key]?.bytes == bytes) }
        kept.store.keepsDigest = false
        #expect(kept.store.digest() == Self.fresh(content).digest(), "computed at once")
        #expect(kept.store.sortedKeys == content.keys.sorted { $0.utf8.lexicographicallyPrecedes($1.utf8) })
        #expect(kept.store.values.count { _ in true } == content.count)
    }

    /// Texts that look alike are different keys, in the store, its digest and what it hands over.
    @Test func keysAreBytes() throws {
        let store = StateStore<StateBlob>(name: "s")
        let keys = ["é", "e\u{301}", "a\u{316}\u{301}", "a\u{301}\u{316}", "", "K", "\u{212A}"]
        for (number, key) in keys.enumerated() { store.set(key, StateBlob([UInt8(number)])) }
        #expect(store.count == keys.count)
        for (number, key) in keys.enumerated() { #expect(store[key]?.bytes == [UInt8(number)]) }
        #expect(store.takeChanges().count == keys.count)
        let before = store.digest()
        #expect(store.remove("e\u{301}") != nil && store["é"] != nil && store.digest() != before)
        #expect(store.takeChanges().entries.map { Array($0.key.utf8) } == [Array("e\u{301}".utf8)])
    }

    /// A key costs its few bytes on the disk however often it changes: runs are merged, and those that were go.
    @Test func runsAreMerged() throws {
        let scratch = try ScratchDirectory()
        let kept = try Kept(scratch.path + "/state", nil)
        for round in 0..<100 {
            for key in 0..<50 where (key + round) % 3 == 0 {
                kept.store.set("k\(key)", StateBlob(Array(repeating: UInt8(round), count: 100)))
            }
            if round == 99 { for key in 0..<50 { _ = kept.store.remove("k\(key)") } }
            try kept.checkpoint()
        }
        try kept.checkpoint()
        kept.store.set("last", StateBlob([]))
        try kept.checkpoint()
        let database = try DatabaseQueue(path: scratch.path + "/state")
        let (runs, chunks) = try database.read { database in
            (
                try Int.fetchOne(database, sql: "SELECT count(*) FROM runs WHERE obsolete = 0") ?? -1,
                try Int.fetchOne(database, sql: "SELECT count(*) FROM chunks") ?? -1
            )
        }
        // The last removals are much smaller than what they hide.
        #expect(runs <= 3 && chunks <= 4, "\(runs) runs, \(chunks) chunks")
        try kept.reopen()
        #expect(kept.store.sortedKeys == ["last"])
    }

    /// What cannot be read is told, and nothing is taken for absent; who comes later locks out who came before.
    @Test func damageAndRivalsAreTold() throws {
        let scratch = try ScratchDirectory()
        let path = scratch.path + "/state"
        let kept = try Kept(path, nil)
        for key in 0..<500 { kept.store.set("k\(key)", StateBlob(Array(repeating: 1, count: 100))) }
        try kept.checkpoint()
        let rival = try Kept(path, nil)
        #expect(rival.store["k7"]?.bytes.count == 100)
        kept.store.set("k7", StateBlob([]))
        #expect(errorCode { try kept.checkpoint() } == "state-taken")
        let file = try DatabaseQueue(path: path)
        try file.write { try $0.execute(sql: "UPDATE chunks SET data = zeroblob(length(data))") }
        try rival.reopen()
        #expect(rival.database.failure == nil)
        _ = rival.store["k7"]
        #expect(rival.database.failure?.code == "state-load")
        // As builds before runs had it: what it says is folded again.
        try file.write {
            try $0.execute(sql: "CREATE TABLE state(x); PRAGMA user_version = 0")
            try $0.execute(sql: "INSERT OR REPLACE INTO meta VALUES('keys/s', '9')")
        }
        try file.close()
        let later = try Kept(path, nil)
        #expect(later.store.count == 0 && later.store["k7"] == nil && later.database.failure == nil)
    }

    /// Timers set, cancelled and taken at random, over checkpoints, ends without warning and pages so small that most of them
    /// are on the disk, against a sorted list.
    @Test(arguments: 0..<40) func timersComeInOrder(seed: Int) throws {
        var random = SeededRandom(seed: UInt64(seed))
        let scratch = try ScratchDirectory()
        var database = try StateDatabase(path: scratch.path + "/state")
        var queue = TimerQueue(page: 1 + seed % 4, heapLimit: 2 + seed % 7)
        func reopen() throws {
            database = try StateDatabase(path: scratch.path + "/state")
            queue = TimerQueue(page: 1 + seed % 4, heapLimit: 2 + seed % 7)
            _ = try database.load([queue.store], identity: nil)
            queue.restore()
        }
        try reopen()
        var set: Set<String> = []
        var saved: Set<String> = []
        func first() -> TimerQueue.Entry? { set.compactMap { TimerQueue.Entry(name: $0) }.min() }
        let times: [Int64] = [.min, -5_000_000, -3, 0, 1, 2, 3, 40, 41, 1_700_000_000_000, 253_402_300_799_999, .max]
        for round in 0..<300 {
            let time = times[Int.random(in: 0..<times.count, using: &random)]
            let entry = TimerQueue.Entry(
                time: Instant(milliseconds: time), stage: Int.random(in: 0..<3, using: &random),
                // The second begins with a mark that joins what stands before it, the third is a bar.
                key: ["k", "\u{301}e", "|", ""][Int.random(in: 0..<4, using: &random)])
            switch Int.random(in: 0..<8, using: &random) {
            case 0..<4:
                queue.insert(entry)
                set.insert(entry.name)
            case 4:
                queue.remove(entry)
                set.remove(entry.name)
            case 5:
                let taken = queue.take()
                #expect(taken?.name == first()?.name, "seed \(seed), round \(round)")
                if let taken { set.remove(taken.name) }
            case 6:
                queue.checkpointBegins()
                queue.store.beginSnapshot()
                let (expected, count) = (set, queue.store.count)
                var delta = StateDelta(store: queue.store.name)
                while !queue.store.takeSnapshot(limit: 2, into: &delta) {
                    guard let taken = queue.take() else { continue }
                    set.remove(taken.name)
                    if Bool.random(using: &random) {
                        queue.insert(entry)
                        set.insert(entry.name)
                    }
                }
                let runs = try database.checkpoint([delta], inputs: [], meta: ["keys/runner.timers": "\(count)"])
                if let changed = runs["runner.timers"] { queue.store.snapshotStored(changed) }
                saved = expected
                var (forgotten, evicted) = (1000, Int.random(in: 0...600, using: &random))
                queue.store.forget(&forgotten)
                queue.shrink()
                queue.store.evict(&evicted)
            default:
                guard Int.random(in: 0..<4, using: &random) == 0 else { break }
                set = saved
                try reopen()
            }
            #expect(queue.peek()?.name == first()?.name, "seed \(seed), round \(round)")
            #expect(queue.store.count == set.count)
        }
        while let entry = queue.take() {
            #expect(entry.name == first()?.name)
            set.remove(entry.name)
        }
        #expect(set.isEmpty)
    }
}
