"""What runs where: experiments, the graph of cells, the ledger, Ray, MLflow. Knows no science."""
