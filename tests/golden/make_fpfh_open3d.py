"""Writes fpfh_open3d.npz: points, normals and what Open3D says of them. Run once, where `pip install open3d` works."""

from pathlib import Path

import numpy as np
import open3d

random = np.random.default_rng(0)
x, y = random.uniform(-0.05, 0.05, (2, 220))
points = np.stack([x, y, 0.5 + 0.01 * np.sin(x / 0.01) * np.cos(y / 0.015) + random.normal(0, 1e-3, 220)], axis=1)
points[-1] += 1  # a point without neighbours

cloud = open3d.geometry.PointCloud(open3d.utility.Vector3dVector(points))
cloud.estimate_normals(open3d.geometry.KDTreeSearchParamKNN(12))
cloud.orient_normals_towards_camera_location([0.0, 0.0, 0.0])
answers = {
    f"radius_{radius}": open3d.pipelines.registration.compute_fpfh_feature(
        cloud, open3d.geometry.KDTreeSearchParamRadius(radius)
    ).data.T
    for radius in (0.015, 0.03)
}
np.savez_compressed(
    Path(__file__).with_name("fpfh_open3d.npz"),
    points=points,
    normals=np.asarray(cloud.normals),
    version=open3d.__version__,
    **{name: answer.astype(np.float32) for name, answer in answers.items()},
)
