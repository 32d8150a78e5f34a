import Base
import Foundation

package enum LearningModule {}
/// Errors of models and measures.
package typealias LearningError = Failure<LearningModule>

/// A gradient-boosted tree model for binary scores, walked so that every score is bit-identical to libxgboost's: float32
/// compare (left when x < threshold), NaN by the default direction, leaves added in tree order to the margin, sigmoid as
/// 1 / (exp(min(-x, 88.7)) + 1) in float32. Source: xgboost 1.7, src/predictor/cpu_predictor.cc, src/common/math.h.
package struct TreeEnsemble: Sendable {
    /// A node is a test or, with `left` 0, a leaf whose value is `threshold`.
    struct Node: Sendable {
        /// Feature index; the sign bit says that NaN goes left.
        var feature: UInt32
        var threshold: Float
        var left: Int32
        var right: Int32
    }

    private let nodes: [Node]
    private let roots: [Int32]
    /// Where boosting starts, in margin space.
    private let baseMargin: Float
    package let featureCount: Int

    package var treeCount: Int { roots.count }

    /// Reads the JSON that XGBoosterSaveModel writes (1.7: base_score is text, in probability space).
    package init(xgboost bytes: [UInt8]) throws(LearningError) {
        let document = JSONDocument()
        do {
            try document.parse(bytes)
        } catch {
            throw LearningError("bad-model", "the model is not JSON", cause: error, fault: .world)
        }
        func path(_ keys: JSONKey...) -> Int? {
            var node = 0
            for key in keys {
                guard let next = document.member(node, key) else { return nil }
                node = next
            }
            return node
        }
        func missing(_ what: String) -> LearningError {
            LearningError("bad-model", "the model is no binary gbtree of XGBoost 1.7: \(what)", fault: .world)
        }
        guard let objective = path("learner", "objective", "name").flatMap({ document.string($0) }),
            objective == "binary:logistic"
        else {
            throw missing("its objective is not binary:logistic")
        }
        guard path("learner", "gradient_booster", "name").flatMap({ document.string($0) }) == "gbtree" else {
            throw missing("its booster is not gbtree")
        }
        guard
            let base = path("learner", "learner_model_param", "base_score").flatMap({ document.string($0) }).flatMap({
                Float($0)
            }),
            let features = path("learner", "learner_model_param", "num_feature").flatMap({ document.string($0) })
                .flatMap({ Int($0) }),
            let trees = path("learner", "gradient_booster", "model", "trees")
        else { throw missing("parameters are missing") }
        featureCount = features
        baseMargin = -logf(1 / base - 1)
        var nodes: [Node] = []
        var roots: [Int32] = []
        do {
            try document.forEachElement(trees) { tree in
                roots.append(Int32(nodes.count))
                try TreeEnsemble.read(tree, document, features, into: &nodes)
            }
        } catch {
            throw LearningError("bad-model", "a tree of the model is damaged", cause: error, fault: .world)
        }
        self.nodes = nodes
        self.roots = roots
    }

    private static func read(
        _ tree: Int, _ document: JSONDocument, _ features: Int, into nodes: inout [Node]
    ) throws {
        func numbers<T>(_ key: JSONKey, _ read: (Int) -> T?) throws -> [T] {
            guard let list = document.member(tree, key) else {
                throw LearningError("bad-model", "no \(key.text)", fault: .world)
            }
            var result: [T] = []
            try document.forEachElement(list) {
                guard let value = read($0) else { throw LearningError("bad-model", "bad \(key.text)", fault: .world) }
                result.append(value)
            }
            return result
        }
        let left = try numbers("left_children") { document.int($0) }
        let right = try numbers("right_children") { document.int($0) }
        let indices = try numbers("split_indices") { document.int($0) }
        // Parsed to float32 directly: going through double could round twice.
        let conditions = try numbers("split_conditions") { Float(String(decoding: document.raw($0), as: UTF8.self)) }
        let defaults = try numbers("default_left") { document.int($0) ?? (document.bool($0) == true ? 1 : 0) }
        if let kinds = document.member(tree, "split_type") {
            try document.forEachElement(kinds) {
                guard document.int($0) == 0 else {
                    throw LearningError("bad-model", "categorical splits are not read", fault: .world)
                }
            }
        }
        let base = Int32(nodes.count)
        let count = left.count
        guard right.count == count, indices.count == count, conditions.count == count, defaults.count == count else {
            throw LearningError("bad-model", "the arrays of a tree differ in length", fault: .world)
        }
        for index in 0..<count {
            if left[index] < 0 {
                nodes.append(Node(feature: 0, threshold: conditions[index], left: 0, right: 0))
                continue
            }
            guard left[index] > index, left[index] < count, right[index] > index, right[index] < count,
                indices[index] >= 0,
                indices[index] < features
            else { throw LearningError("bad-model", "a tree has a loop or an unknown feature", fault: .world) }
            nodes.append(
                Node(
                    feature: UInt32(indices[index]) | (defaults[index] != 0 ? 0x8000_0000 : 0),
                    threshold: conditions[index],
                    left: base + Int32(left[index]), right: base + Int32(right[index])))
        }
    }

    /// The probability of the positive class. `row` must have `featureCount` values; NaN is missing.
    package func score(_ row: UnsafeBufferPointer<Float>) -> Float {
        precondition(row.count >= featureCount, "a row needs as many values as the model has features")
        var margin = baseMargin
        nodes.withUnsafeBufferPointer { nodes in
            for root in roots {
                var index = Int(root)
                while true {
                    let node = nodes[index]
                    if node.left == 0 {
                        margin += node.threshold
                        break
                    }
                    let value = row[Int(node.feature & 0x7FFF_FFFF)]
                    let goesLeft = value.isNaN ? node.feature & 0x8000_0000 != 0 : value < node.threshold
                    index = Int(goesLeft ? node.left : node.right)
                }
            }
        }
        return 1 / (expf(min(-margin, 88.7)) + 1)
    }

    package func score(_ row: [Float]) -> Float { row.withUnsafeBufferPointer { score($0) } }
}
