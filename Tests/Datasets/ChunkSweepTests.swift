import Base
import Datasets
import EventLog
import Foundation
import Simulation
import Testing

/// Space of chunks that no version names any more, with crashes in between and others at work meanwhile.
@Suite struct ChunkSweepTests {
    private static let packSize: Int64 = 60_000

    /// Chunks of all sizes, of which LZ4 makes some smaller.
    private static func pool(_ seed: UInt64, _ count: Int = 24) -> [[UInt8]] {
        var random = SeededRandom(seed: seed)
        return (0..<count).map { number in
            let count = Int.random(in: 1...16_000, using: &random)
            guard number % 3 > 0 else { return [UInt8](repeating: UInt8(truncatingIfNeeded: number), count: count) }
            return (0..<count).map { _ in UInt8.random(in: 0...255, using: &random) }
        }
    }

    private static func bytes(_ volume: any LogVolume) throws -> Int64 {
        try volume.list().filter { $0.hasSuffix(".pack") }.reduce(0) { try $0 + volume.open($1, .read).size }
    }

    /// Versions come and go; what they name is there whatever happens, and what nobody names takes no more space than what is named.
    @Test(arguments: 0..<60) func onlyWhatNobodyNamesGoes(seed: Int) throws {
        var random = SeededRandom(seed: UInt64(seed) &+ 4000)
        let volume = SimulatedVolume(seed: UInt64(seed))
        let pool = Self.pool(UInt64(seed))
        var versions: [[Int]] = []
        func wanted() -> Set<Digest> { Set(versions.joined().map { Digest.of(pool[$0]) }) }
        for _ in 0..<8 {
            let store = try ChunkStore(volume, packSize: Self.packSize)
            for number in Set(versions.joined()) {
                #expect(try store.get(Digest.of(pool[number])) == pool[number], "seed \(seed)")
            }
            volume.crash(within: Int.random(in: 5...120, using: &random))
            do {
                for _ in 0..<10 {
                    if versions.count > 3 || (!versions.isEmpty && Bool.random(using: &random)) {
                        versions.remove(at: Int.random(in: versions.indices, using: &random))
                        _ = try store.sweep(keeping: wanted())
                        let live = Set(versions.joined()).reduce(0) { $0 + pool[$1].count + 64 }
                        #expect(try Self.bytes(volume) <= Int64(2 * live + 64), "seed \(seed)")
                    } else {
                        let version = (0..<Int.random(in: 1...8, using: &random)).map { _ in
                            Int.random(in: pool.indices, using: &random)
                        }
                        try store.holding {
                            for (place, number) in version.enumerated() {
                                try store.put(pool[number][...])
                                // Somebody removes something before this one is announced.
                                if place == 3 { _ = try store.sweep(keeping: wanted()) }
                            }
                            try store.sync()
                            versions.append(version)
                        }
                    }
                    for number in Set(versions.joined()) {
                        #expect(try store.get(Digest.of(pool[number])) == pool[number], "seed \(seed)")
                    }
                }
            } catch {
                let code = (error as? any DescribedError)?.code
                #expect(code == "chunks-unreadable" || code == "power-failure", "\(error)")
            }
            volume.crash()
        }
        let store = try ChunkStore(volume, packSize: Self.packSize)
        for number in Set(versions.joined()) { #expect(try store.get(Digest.of(pool[number])) == pool[number]) }
        versions = []
        _ = try store.sweep(keeping: [])
        // A pack that was just begun may stay.
        #expect(try Self.bytes(volume) <= 8 && store.statistics.chunks == 0, "seed \(seed)")
    }

    /// What is made while something is removed is whole, and so is what is read meanwhile.
    @Test func makersAndReadersGoOn() throws {
        let scratch = try ScratchDirectory()
        let store = try ChunkStore(DiskVolume(scratch.path), packSize: Self.packSize)
        let pool = Self.pool(9, 300)
        try store.put(pool[0][...])
        let versions = Monitor<[[Int]]>([])
        let isOver = Monitor(false)
        let mistakes = Monitor<[String]>([])
        let makers = (0..<2).map { maker in
            BlockingThread(name: "maker") {
                var random = SeededRandom(seed: UInt64(maker))
                do {
                    for _ in 0..<150 {
                        let version = (0..<6).map { _ in Int.random(in: pool.indices, using: &random) }
                        try store.holding {
                            for number in version { try store.put(pool[number][...]) }
                            try store.sync()
                            versions.withLock { $0.append(version) }
                        }
                        // As they stand in the list, they are read: nobody removes while the list is held.
                        try versions.withLock { list in
                            for number in list.last ?? [] where try store.get(Digest.of(pool[number])) != pool[number] {
                                mistakes.withLock { $0.append("\(number) is another") }
                            }
                        }
                    }
                } catch {
                    mistakes.withLock { $0.append("\(error)") }
                }
            }
        }
        let reader = BlockingThread(name: "reader") {
            // One chunk is in every version: it moves, and is always there.
            while !isOver.withLock({ $0 }) {
                do { _ = try store.get(Digest.of(pool[0])) } catch { mistakes.withLock { $0.append("\(error)") } }
            }
        }
        var packs = 0
        let sweeper = Monitor(SeededRandom(seed: 77))
        while makers.contains(where: { !$0.isOver }) {
            let one = try versions.withLock { list in
                if list.count > 2 {
                    list.remove(at: sweeper.withLock { Int.random(in: list.indices, using: &$0) })
                }
                return try store.sweep(keeping: Set((list.joined() + [0]).map { Digest.of(pool[$0]) }))
            }
            packs += one.packs
        }
        for maker in makers { maker.join() }
        isOver.withLock { $0 = true }
        reader.join()
        #expect(mistakes.withLock { $0 } == [])
        #expect(packs > 10)
        let again = try ChunkStore(DiskVolume(scratch.path), packSize: Self.packSize)
        for number in Set(versions.withLock { $0 }.joined()) {
            #expect(try again.get(Digest.of(pool[number])) == pool[number])
        }
    }

    /// A pack with a wanted chunk that is damaged stays as it is, and the others go.
    @Test func whatIsDamagedIsNotThrownAway() throws {
        let scratch = try ScratchDirectory()
        let store = try ChunkStore(DiskVolume(scratch.path), packSize: Self.packSize)
        let pool = Self.pool(3)
        let digests = try pool.map { try store.put($0[...]) }
        try store.sync()
        let path = scratch.path + "/00000000.pack"
        var bytes = try Data(contentsOf: URL(filePath: path))
        // In the second chunk, which is noise.
        let first = Int(try #require(bytes.dropFirst(8).first)) | Int(bytes[9]) << 8
        bytes[8 + 41 + first + 41 + 10] ^= 1
        try bytes.write(to: URL(filePath: path))
        // Known to be damaged or not yet.
        for round in 0..<2 {
            let swept = try store.sweep(keeping: [digests[1], digests[20]])
            #expect(swept.damaged == 1 && (round > 0 || swept.packs > 0), "\(swept)")
            #expect(FileManager.default.fileExists(atPath: path))
        }
        #expect(try store.get(digests[20]) == pool[20])
        #expect(errorCode { _ = try store.get(digests[1]) } == "rot")
    }
}
