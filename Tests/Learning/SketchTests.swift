import Base
import Foundation
import Learning
import Testing

@Suite struct SketchTests {
    private static func values(_ random: inout SeededRandom, _ count: Int) -> [Double] {
        let kind = Int.random(in: 0..<5, using: &random)
        return (0..<count).map { _ in
            switch kind {
            case 0: Double(Int.random(in: -20...20, using: &random))
            case 1:
                Double.random(in: -1...1, using: &random) * pow(10, Double(Int.random(in: -300...300, using: &random)))
            // Far from zero and close together: what a naive variance loses.
            case 2: 1e9 + Double.random(in: 0...1, using: &random)
            case 3:
                [0.0, -0.0, .infinity, -.infinity, .leastNonzeroMagnitude, 1][Int.random(in: 0..<6, using: &random)]
            default: exp(Double.random(in: -5...15, using: &random))
            }
        }
    }

    /// Adds the values in one order, and in another one in parts that are merged, with other values put in and taken away.
    private static func twoWays<S>(
        _ values: [Double], _ random: inout SeededRandom, _ empty: S, add: (inout S, Double) -> Void,
        subtract: ((inout S, Double) -> Void)?, merge: (inout S, S) -> Void
    ) -> (S, S) {
        var whole = empty
        for value in values { add(&whole, value) }
        var parts = Array(repeating: empty, count: 4)
        let extra = Self.values(&random, 10)
        if subtract != nil { for value in extra { add(&parts[0], value) } }
        for value in values.shuffled(using: &random) { add(&parts[Int.random(in: 0..<4, using: &random)], value) }
        if let subtract { for value in extra.shuffled(using: &random) { subtract(&parts[0], value) } }
        for part in parts[1...] { merge(&parts[0], part) }
        return (whole, parts[0])
    }

    /// Against the order statistics of the sorted values; parts and disorder change nothing.
    @Test(arguments: 0..<40) func quantilesKeepTheirError(seed: Int) throws {
        var random = SeededRandom(seed: UInt64(seed))
        let values = Self.values(&random, Int.random(in: 1...400, using: &random))
        let (histogram, merged) = Self.twoWays(
            values, &random, LogHistogram(), add: { $0.add($1) }, subtract: { $0.subtract($1) },
            merge: { $0.merge($1) })
        #expect(histogram == merged && histogram.count == Int64(values.count))
        let sorted = values.sorted()
        for q in [0, 0.01, 0.25, 0.5, 0.9, 0.999, 1] {
            let rank = q * Double(sorted.count - 1)
            let share = rank - rank.rounded(.down)
            let (low, high) = (sorted[Int(rank)], sorted[Int(rank.rounded(.up))])
            let exact = share == 0 || low.isInfinite ? low : low * (1 - share) + high * share
            let ours = try #require(histogram.quantile(q))
            if [low, high].allSatisfy({ $0.isNormal || $0 == 0 || $0.isInfinite }) {
                let bound = (abs(low) * (1 - share) + abs(high) * share) * (LogHistogram.relativeError + 1e-15)
                #expect(ours == exact || abs(ours - exact) <= bound, "\(q): \(ours) \(exact)")
            }
        }
        var writer = ByteWriter()
        histogram.encode(into: &writer)
        var reader = writer.bytes.withUnsafeBytes { ByteReader(UnsafeRawBufferPointer(Self.copy($0))) }
        #expect(try LogHistogram(decoding: &reader) == histogram && LogHistogram().quantile(0.5) == nil)
    }

    private static func copy(_ bytes: UnsafeRawBufferPointer) -> UnsafeMutableRawBufferPointer {
        let copy = UnsafeMutableRawBufferPointer.allocate(byteCount: bytes.count, alignment: 8)
        copy.copyMemory(from: bytes)
        return copy
    }

    /// Exact while few, within four standard errors when many, and a function of the set alone.
    @Test(arguments: [0, 1, 10, 512, 513, 5000, 100_000, 1_000_000]) func distinctValuesAreCounted(count: Int) throws {
        var random = SeededRandom(seed: UInt64(count))
        let values = (0..<count).map { Double($0) * 0.37 - 100 }
        let (sketch, merged) = Self.twoWays(
            values + values.prefix(1000), &random, DistinctSketch(), add: { $0.add($1) }, subtract: nil,
            merge: { $0.merge($1) })
        #expect(sketch == merged && sketch.isExact == (count <= DistinctSketch.exactLimit))
        let off = abs(sketch.value - Double(count))
        #expect(count <= DistinctSketch.exactLimit ? off == 0 : off <= 4 * 0.0163 * Double(count), "\(sketch.value)")
        var texts = DistinctSketch()
        for number in 0..<min(count, 50_000) { texts.add("carrier-\(number)") }
        let expected = Double(min(count, 50_000))
        #expect(abs(texts.value - expected) <= 4 * 0.0163 * expected, "\(texts.value)")
        var writer = ByteWriter()
        sketch.encode(into: &writer)
        var reader = writer.bytes.withUnsafeBytes { ByteReader(UnsafeRawBufferPointer(Self.copy($0))) }
        #expect(try DistinctSketch(decoding: &reader) == sketch)
    }

    /// Against Python's statistics module, which computes in fractions.
    @Test func variancesAreThoseOfFractions() throws {
        var random = SeededRandom(seed: 3)
        var lines: [String] = []
        var ours: [(Double, Double)] = []
        while lines.count < 150 {
            let values = Self.values(&random, Int.random(in: 2...60, using: &random))
            guard values.allSatisfy({ $0.isFinite && ($0 == 0 || (1e-140...1e140).contains($0.magnitude)) }) else {
                continue
            }
            let (moments, merged) = Self.twoWays(
                values, &random, Moments(), add: { $0.add($1) }, subtract: { $0.subtract($1) },
                merge: { $0.merge($1) })
            let variance = try #require(moments.variance(sample: true))
            #expect(variance.bitPattern == merged.variance(sample: true)?.bitPattern && moments.mean == merged.mean)
            ours.append((variance, try #require(moments.variance(sample: false))))
            lines.append(values.map { "\($0)" }.joined(separator: " "))
        }
        let code = """
            import sys, fractions as f
            for l in sys.stdin:
                x = [f.Fraction(float(v)) for v in l.split()]
                m = sum(x) / len(x)
                s = sum((v - m) ** 2 for v in x)
                print(float(s / (len(x) - 1)).hex(), float(s / len(x)).hex())
            """
        let reference = try run("/usr/bin/env", ["python3", "-c", code], input: lines.joined(separator: "\n"))
        let expected = reference.output.split(separator: "\n").map {
            $0.split(separator: " ").compactMap { Double(String($0)) }
        }
        try #require(expected.count == ours.count, "\(reference.errors)")
        for (mine, theirs) in zip(ours, expected) {
            #expect(abs(mine.0 - theirs[0]) <= theirs[0] * 1e-15 && abs(mine.1 - theirs[1]) <= theirs[1] * 1e-15)
        }
        #expect(Moments().mean == nil && Moments().variance(sample: false) == nil)
        var one = Moments()
        one.add(5)
        #expect(one.variance(sample: true) == nil && one.variance(sample: false) == 0)
    }
}
