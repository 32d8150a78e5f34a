import Base
import Datasets
import EventLog
import Foundation
import Simulation
import Testing

@Suite struct ChunkTests {
    private static func noise(_ count: Int, _ seed: UInt64) -> [UInt8] {
        var random = SeededRandom(seed: seed)
        return (0..<count).map { _ in UInt8.random(in: 0...255, using: &random) }
    }

    private static func cuts(_ bytes: [UInt8]) -> [Range<Int>] { bytes.withUnsafeBytes { ContentChunker.chunks($0) } }

    /// Cuts cover everything, keep their bounds, and stand where they stood when something is put in before them.
    @Test func cutsFollowTheContent() {
        let bytes = Self.noise(8 << 20, 1)
        let chunks = Self.cuts(bytes)
        #expect(chunks.map(\.count).reduce(0, +) == bytes.count)
        #expect(
            chunks.dropLast().allSatisfy { $0.count >= ContentChunker.smallest && $0.count <= ContentChunker.largest })
        let mean = Double(bytes.count) / Double(chunks.count)
        #expect((48_000...96_000).contains(mean), "\(mean)")
        var changed = bytes
        changed.insert(contentsOf: Self.noise(1000, 2), at: 3 << 20)
        func digests(_ bytes: [UInt8]) -> Set<Digest> { Set(Self.cuts(bytes).map { Digest.of(Array(bytes[$0])) }) }
        let fresh = digests(changed).subtracting(digests(bytes))
        #expect(fresh.count <= 4, "\(fresh.count) chunks are new")
        // The same for ever: what is stored is found again by later versions of the program.
        #expect(Self.cuts(Self.noise(1 << 20, 3)).prefix(3).map(\.count) == [71_743, 70_722, 77_267])
        for count in [0, 1, ContentChunker.smallest, ContentChunker.smallest + 1] {
            #expect(Self.cuts([UInt8](repeating: 7, count: count)).map(\.count).reduce(0, +) == count)
        }
    }

    /// Whatever pieces bytes come in, the same chunks are kept.
    @Test(arguments: 0..<8) func piecesDoNotShow(seed: Int) throws {
        var random = SeededRandom(seed: UInt64(seed))
        let bytes = Self.noise(Int.random(in: 0...(3 << 20), using: &random), UInt64(seed) &+ 50)
        let store = try ChunkStore(SimulatedVolume(seed: UInt64(seed)), packSize: 1 << 20)
        var writer = ChunkWriter(store)
        var from = 0
        while from < bytes.count {
            let count = min(bytes.count - from, Int.random(in: 1...900_000, using: &random))
            try writer.append(Array(bytes[from..<from + count]))
            from += count
        }
        let recipe = try writer.finish()
        let expected = Self.cuts(bytes).map { Digest.of(Array(bytes[$0])) }
        #expect(recipe.digests == expected && recipe.byteCount == Int64(bytes.count))
        #expect(try ChunkRecipe(recipe.encoded) == recipe)
        var back: [UInt8] = []
        try store.read(recipe) { back += $0 }
        #expect(back == bytes)
    }

    /// What was synced before a crash is there after it, under the same digests, and what is written afterwards as well.
    @Test(arguments: 0..<40) func survivesCrashes(seed: Int) throws {
        var random = SeededRandom(seed: UInt64(seed) &+ 700)
        let volume = SimulatedVolume(seed: UInt64(seed))
        var kept: [Digest: [UInt8]] = [:]
        for _ in 0..<6 {
            let store = try ChunkStore(volume, packSize: 60_000)
            for (digest, bytes) in kept { #expect(try store.get(digest) == bytes) }
            var pending: [Digest: [UInt8]] = [:]
            volume.crash(within: Int.random(in: 1...30, using: &random))
            do {
                for _ in 0..<12 {
                    // Noise, and what LZ4 makes smaller.
                    let count = Int.random(in: 0...20_000, using: &random)
                    let bytes =
                        Bool.random(using: &random)
                        ? Self.noise(count, random.next()) : [UInt8](repeating: UInt8(count & 255), count: count)
                    pending[try store.put(bytes[...])] = bytes
                    if Int.random(in: 0...2, using: &random) == 0 {
                        try store.sync()
                        kept.merge(pending) { $1 }
                        pending = [:]
                    }
                }
            } catch {
                #expect(["chunks-unreadable"].contains(error.code), "\(error)")
            }
            volume.crash()
        }
        let store = try ChunkStore(volume, packSize: 60_000)
        for (digest, bytes) in kept { #expect(try store.get(digest) == bytes) }
        let before = store.statistics
        for bytes in kept.values { try store.put(bytes[...]) }
        #expect(store.statistics.written == before.written, "a known chunk is written once")
    }

    /// What a crash tore is not believed at the second opening either, and is written again when it comes again.
    @Test func tornPacksStayTorn() throws {
        let scratch = try ScratchDirectory()
        let bytes = (0..<3).map { Self.noise(30_000, UInt64($0)) }
        let first = try ChunkStore(DiskVolume(scratch.path))
        let digests = try bytes.map { try first.put($0[...]) }
        try first.sync()
        let path = scratch.path + "/00000000.pack"
        var pack = try Data(contentsOf: URL(filePath: path))
        for at in 40_000..<50_000 { pack[at] = 0 }
        try pack.write(to: URL(filePath: path))
        // The index that the second opening goes by may be gone as well.
        for round in 0..<3 {
            let store = try ChunkStore(DiskVolume(scratch.path))
            #expect(!store.contains(digests[1]) && store.contains(digests[0]) && store.contains(digests[2]))
            #expect(["rot", "no-chunk"].contains(errorCode { _ = try store.get(digests[1]) }))
            try? FileManager.default.removeItem(atPath: scratch.path + (round == 0 ? "/00000000.index" : "/none"))
            if round == 1 { try store.put(Self.noise(10, 77)[...]) }
        }
        let store = try ChunkStore(DiskVolume(scratch.path))
        try store.put(bytes[1][...])
        try store.sync()
        let again = try ChunkStore(DiskVolume(scratch.path))
        for (digest, bytes) in zip(digests, bytes) { #expect(try again.get(digest) == bytes) }
    }

    /// A damaged byte is told, and the others are read.
    @Test func rotIsTold() throws {
        let scratch = try ScratchDirectory()
        var digests: [Digest] = []
        for _ in 0..<2 {
            // The second time it opens a sealed pack by its index.
            let store = try ChunkStore(DiskVolume(scratch.path), packSize: 100_000)
            for number in 0..<6 { digests.append(try store.put(Self.noise(30_000, UInt64(number))[...])) }
            try store.sync()
        }
        let path = scratch.path + "/00000000.pack"
        var bytes = try Data(contentsOf: URL(filePath: path))
        bytes[40_000] ^= 1
        try bytes.write(to: URL(filePath: path))
        let store = try ChunkStore(DiskVolume(scratch.path), packSize: 100_000)
        #expect(errorCode { _ = try store.get(digests[1]) } == "rot")
        for digest in [digests[0]] + digests[2..<6] { #expect(try store.get(digest).count == 30_000) }
        #expect(errorCode { _ = try store.get(Digest.of([1])) } == "no-chunk")
    }

    /// The tree is RFC 6962's over the digests.
    @Test func treesAreCertificateTransparencys() {
        let leaves = (0..<5).map { Digest.of([UInt8($0)]) }
        func leaf(_ digest: Digest) -> Digest { Digest.of([0] + digest.bytes) }
        func node(_ left: Digest, _ right: Digest) -> Digest { Digest.of([1] + left.bytes + right.bytes) }
        let hashed = leaves.map(leaf)
        #expect(ChunkTree.root([]) == Digest.of([]) && ChunkTree.root([leaves[0]]) == hashed[0])
        let four = node(node(hashed[0], hashed[1]), node(hashed[2], hashed[3]))
        #expect(ChunkTree.root(leaves) == node(four, hashed[4]))
    }
}
