import Foundation

/// Measures of binary scores against labels.
package enum Metrics {
    /// Area under the ROC curve by ranks, ties counted half (Mann-Whitney); nil when one class is missing.
    package static func auc(_ scores: [Float], _ labels: [Bool]) -> Double? {
        guard !scores.contains(where: \.isNaN) else { return nil }
        let order = scores.indices.sorted { scores[$0] < scores[$1] }
        var positives = 0
        var doubledWins: Int64 = 0
        var negativesBelow: Int64 = 0
        var index = 0
        while index < order.count {
            var end = index
            var tiedPositives: Int64 = 0
            var tiedNegatives: Int64 = 0
            while end < order.count, scores[order[end]] == scores[order[index]] {
                if labels[order[end]] { tiedPositives += 1 } else { tiedNegatives += 1 }
                end += 1
            }
            doubledWins += tiedPositives * (2 * negativesBelow + tiedNegatives)
            negativesBelow += tiedNegatives
            positives += Int(tiedPositives)
            index = end
        }
        let negatives = labels.count - positives
        guard positives > 0, negatives > 0 else { return nil }
        return Double(doubledWins) / 2 / (Double(positives) * Double(negatives))
    }

    /// Mean negative log likelihood, scores clipped to [1e-15, 1 - 1e-15] as scikit-learn does for doubles; nil when empty.
    package static func logLoss(_ scores: [Float], _ labels: [Bool]) -> Double? {
        guard !scores.isEmpty else { return nil }
        var sum = ExactSum()
        for (score, label) in zip(scores, labels) {
            let clipped = min(max(Double(score), 1e-15), 1 - 1e-15)
            sum.add(-log(label ? clipped : 1 - clipped))
        }
        return sum.value / Double(scores.count)
    }

    /// The q-quantile with linear interpolation between order statistics (NumPy's default). `sorted` must be ascending.
    package static func quantile(_ sorted: [Double], _ q: Double) -> Double? {
        guard let first = sorted.first else { return nil }
        guard sorted.count > 1 else { return first }
        let place = q * Double(sorted.count - 1)
        let low = Int(place.rounded(.down))
        let fraction = place - Double(low)
        return low + 1 < sorted.count ? sorted[low] + (sorted[low + 1] - sorted[low]) * fraction : sorted[low]
    }
}
