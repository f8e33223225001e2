"""From images to files: depth maps, trajectories, optical flow, scene flow and moving objects of trained models.

OUT/meta.json says what the files mean: unit, camera, model, command. Interrupted and started again, what is there is
not computed again.
"""

from geossl.predict.common import PredictionSummary, Progress, to_model_size
from geossl.predict.depth import DEPTH_OUTPUTS, inverse_depth, predict_depth
from geossl.predict.flow import FLOW_OUTPUTS, predict_flow
from geossl.predict.motion import MOTION_OUTPUTS, predict_motion
from geossl.predict.pose import POSE_OUTPUTS, chain_motions, pose_targets, predict_pose
from geossl.predict.scene_flow import (
    SCENE_FLOW_OUTPUTS,
    SceneFlowRequest,
    predict_scene_flow,
    predict_scene_flow_from_parts,
)

__all__ = [
    "DEPTH_OUTPUTS",
    "FLOW_OUTPUTS",
    "MOTION_OUTPUTS",
    "POSE_OUTPUTS",
    "SCENE_FLOW_OUTPUTS",
    "PredictionSummary",
    "Progress",
    "SceneFlowRequest",
    "chain_motions",
    "inverse_depth",
    "pose_targets",
    "predict_depth",
    "predict_flow",
    "predict_motion",
    "predict_pose",
    "predict_scene_flow",
    "predict_scene_flow_from_parts",
    "to_model_size",
]
