import Base

/// A question with its names resolved, ready to be read again and again.
package struct FeaturePlan: Sendable {
    /// One view with what is read of it.
    struct Read: Sendable {
        let view: FeatureView
        /// The name its keys are given under.
        let keyName: String
        /// Indices of features in the view, and the columns of the answer they go to.
        var features: [(feature: Int, column: Int)] = []
    }

    /// One feature of a derived view.
    struct Step: Sendable {
        enum Source: Sendable {
            case column(Int)
            case step(Int)
            case request(String)
        }

        let reference: FeatureReference
        let program: CELProgram
        let sources: [Source]
    }

    /// What was asked for, in its order.
    package let references: [FeatureReference]
    /// What is read of views: the columns that `finish` takes.
    let columns: [FeatureReference]
    let reads: [Read]
    /// What is worked out of that, each after what it needs.
    let steps: [Step]
    /// Where each of what was asked for stands: a column, or behind them a step.
    let places: [Int]
    package let versions: [(view: String, version: Int64)]
    package let serviceVersion: Int64?

    /// What is read of some of the views; the columns keep their places.
    package func part(of names: Set<String>) -> FeaturePlan {
        FeaturePlan(
            references: references, columns: columns, reads: reads.filter { names.contains($0.view.name) },
            steps: steps,
            places: places, versions: versions, serviceVersion: serviceVersion)
    }

    /// Values of a row that are read or worked out.
    package var width: Int { columns.count + steps.count }
    /// Readings that a row costs: a view's are all made, whichever are asked for.
    package var readings: Int { reads.reduce(0) { $0 + $1.view.plan.readings.count } }
    package var isDerived: Bool { !steps.isEmpty }

    /// Names of the views that are read.
    package var viewNames: [String] { reads.map(\.view.name) }

    /// The views that are read, with the names that their keys are given under.
    package var keyed: [(view: String, name: String)] { reads.map { ($0.view.name, $0.keyName) } }

    /// The views whose keys are given under a name.
    package func views(keyedBy name: String) -> String {
        reads.filter { $0.keyName == name }.map(\.view.name).joined(separator: ", ")
    }

    /// Names under which keys must be given.
    package var keyNames: [String] {
        var seen: Set<String> = []
        return reads.map(\.keyName).filter { seen.insert($0).inserted }
    }

    /// Names of what a request must bring along.
    package var requestNames: [String] {
        var seen: Set<String> = []
        return steps.flatMap(\.sources).compactMap { if case .request(let name) = $0 { name } else { nil } }.filter {
            seen.insert($0).inserted
        }
    }
}
