import Base
import Datasets
import Features
import Models
import Streams
import Supervision

/// The one topology of a workspace: features and questions, their outcomes, the models that answer them, and what watches
/// those. Everything in it is a fold; training is outside, behind `training.requested`.
package struct WorkspaceTopology {
    package static let name = "workspace"
    /// Topics that the stages write themselves.
    package static let derived: Set<String> = [
        FeatureTopics.asked, DatasetTopics.outcomes, ModelTopics.requested, ModelTopics.registered,
        ModelTopics.deployed,
        ModelTopics.rejected, ModelTopics.served, MonitorTopics.performance, MonitorTopics.drift,
        MonitorTopics.triggered,
    ]
    package static let answers: Set<String> = [ModelTopics.completed]
    package static let attachments: Set<String> = [ModelTopics.artifacts]

    package let topology: Topology
    package let features: FeatureStage

    package init(_ workspace: CompiledWorkspace) throws {
        let models = try workspace.models()
        let questions = Dictionary(uniqueKeysWithValues: models.map { ($0.name, $0.question) })
        let monitors = try workspace.monitors()
        features = FeatureStage(views: workspace.foldedViews, questions: workspace.questions)
        // The model's bytes come before the news of it; a training is requested after every question of its instant is asked.
        let stages: [any Stage] = [
            ServingStage(models: models), features, OutcomeStage(truths: try workspace.truths()),
            ModelLifecycleStage(models: models),
            PerformanceStage(monitors: monitors, questions: questions),
            DriftStage(monitors: monitors, questions: questions),
            PolicyStage(policies: try workspace.policies()),
        ]
        var seen: Set<String> = []
        let inputs = stages.flatMap(\.inputs).filter { !Self.derived.contains($0) && seen.insert($0).inserted }
        topology = Topology(
            name: Self.name, stages: stages, answers: Self.answers, attachments: Self.attachments,
            upstream: workspace.folds.upstream(of: inputs), saysProgress: workspace.folds.isRead(Self.name),
            readings: workspace.readings, sorted: workspace.sorted.intersection(inputs))
    }
}
