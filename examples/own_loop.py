"""A loop of one's own in plain PyTorch, recorded as a run: `python examples/own_loop.py`, then `useg runs list`."""

import torch

from useg import runs


def main() -> None:
    """Fit a line to noisy points, and watch it."""
    torch.manual_seed(0)
    x = torch.linspace(-1, 1, 200)[:, None]
    y = 3 * x + 0.5 + 0.1 * torch.randn_like(x)
    config = {"lr": 0.1, "steps": 100}
    network = torch.nn.Linear(1, 1)
    optimiser = torch.optim.SGD(network.parameters(), lr=config["lr"])
    with runs.start(config=config, name="line") as run:
        for step in range(1, config["steps"] + 1):
            optimiser.zero_grad()
            loss = torch.nn.functional.mse_loss(network(x), y)
            loss.backward()
            optimiser.step()
            run.log(step, loss=loss.detach(), slope=network.weight.detach().squeeze())
            if step % 25 == 0:
                shown = torch.zeros(64, 64)
                rows = (32 - 8 * network(torch.linspace(-1, 1, 64)[:, None])).long().clamp(0, 63).squeeze()
                shown[rows, torch.arange(64)] = 1
                run.image("fit", shown.numpy(), step)
        run.finish({"loss": loss.item(), "slope": network.weight.item()})
    print(f"recorded in {run.folder.path}")


if __name__ == "__main__":
    main()
