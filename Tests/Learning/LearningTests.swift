import Base
import Foundation
import Learning
import Testing

@Suite struct LearningTests {
    /// Against Python's math.fsum, which is correctly rounded; with exact subtraction on top.
    @Test(arguments: 0..<8) func sumsAreExact(seed: Int) throws {
        var random = SeededRandom(seed: UInt64(seed))
        var lines: [String] = []
        var sums: [Double] = []
        for _ in 0..<200 {
            var values: [Double] = []
            for _ in 0..<Int.random(in: 1...60, using: &random) {
                let spread = [3, 60, 300, 1020][seed % 4]
                let exponent = Int.random(in: -spread...min(spread, 900), using: &random)
                let value = Double(
                    sign: Bool.random(using: &random) ? .plus : .minus, exponent: exponent,
                    significand: Double.random(in: 1..<2, using: &random))
                values.append(value)
                if Int.random(in: 0..<4, using: &random) == 0 { values.append(-value) }
            }
            var sum = ExactSum()
            for value in values { sum.add(value) }
            var shuffled = ExactSum()
            for value in values.shuffled(using: &random) { shuffled.add(value) }
            #expect(sum.value.bitPattern == shuffled.value.bitPattern)
            let extra = Double.random(in: -1e10...1e10, using: &random)
            shuffled.add(extra)
            shuffled.subtract(extra)
            #expect(sum.value.bitPattern == shuffled.value.bitPattern)
            sums.append(sum.value)
            lines.append(values.map { "\($0)" }.joined(separator: " "))
        }
        let code =
            "import sys,math,struct\nfor l in sys.stdin: print(struct.unpack('>Q',struct.pack('>d',math.fsum(map(float,l.split()))))[0])"
        let reference = try run("/usr/bin/env", ["python3", "-c", code], input: lines.joined(separator: "\n"))
        let expected = reference.output.split(separator: "\n").compactMap { UInt64($0) }
        try #require(expected.count == sums.count, "\(reference.errors)")
        for (ours, theirs) in zip(sums, expected) {
            #expect(ours == Double(bitPattern: theirs), "\(ours) \(Double(bitPattern: theirs))")
        }
    }

    @Test func emptyingASumLeavesNothing() {
        var sum = ExactSum()
        for value in [0.1, 1e300, -1e-300, Double.leastNonzeroMagnitude] { sum.add(value) }
        for value in [Double.leastNonzeroMagnitude, 1e300, 0.1, -1e-300] { sum.subtract(value) }
        #expect(sum.value == 0)
    }

    @Test(arguments: 0..<10) func aucIsThePairCount(seed: Int) {
        var random = SeededRandom(seed: UInt64(seed))
        let scores = (0..<200).map { _ in Float(Int.random(in: 0..<30, using: &random)) / 30 }
        let labels = scores.map { Float.random(in: 0..<1, using: &random) < $0 * 0.7 + 0.1 }
        var wins = 0.0
        var pairs = 0.0
        for (a, x) in zip(scores, labels) where x {
            for (b, y) in zip(scores, labels) where !y {
                pairs += 1
                wins += a > b ? 1 : (a == b ? 0.5 : 0)
            }
        }
        #expect(abs((Metrics.auc(scores, labels) ?? -1) - wins / pairs) < 1e-12)
        #expect(Metrics.auc(scores, labels.map { _ in true }) == nil)
    }

    @Test func measuresHaveTheirGoldenValues() {
        // scikit-learn: log_loss([0,0,1,1],[.1,.4,.35,.8]) and roc_auc_score of the same; numpy.quantile.
        #expect(abs((Metrics.logLoss([0.1, 0.4, 0.35, 0.8], [false, false, true, true]) ?? 0) - 0.47228795) < 1e-6)
        #expect(Metrics.auc([0.1, 0.4, 0.35, 0.8], [false, false, true, true]) == 0.75)
        #expect(
            Metrics.quantile([1, 2, 3, 4], 0.99) == 3.9699999999999998
                || abs((Metrics.quantile([1, 2, 3, 4], 0.99) ?? 0) - 3.97) < 1e-12)
        #expect(Metrics.quantile([], 0.5) == nil && Metrics.quantile([7], 0.99) == 7)
    }

    @Test func stabilityIsZeroOnItself() throws {
        let values = (0..<1000).map { Float($0 % 100) }
        let reference = StabilityReference(values: values)
        #expect(reference.edges.count == 9)
        var counts = [Int](repeating: 0, count: reference.binCount)
        for value in values { counts[StabilityReference.bin(value, reference.edges)] += 1 }
        #expect(abs(try #require(reference.index(counts: counts))) < 1e-12)
        // Everything missing: each decile's tenth against the floor, and the floor against one.
        var gone = [Int](repeating: 0, count: reference.binCount)
        gone[reference.binCount - 1] = 10
        let expected = 10 * (0.1 - 1e-4) * log(0.1 / 1e-4) + (1e-4 - 1) * log(1e-4 / 1)
        #expect(abs(try #require(reference.index(counts: gone)) - expected) < 1e-9)
        #expect(StabilityReference(values: [.nan, .nan]).binCount == 2)
        #expect(StabilityReference(json: reference.json) == reference)
    }
}
